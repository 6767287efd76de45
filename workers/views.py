"""The values that an attempt reads: its view of the run, its prompt, its attachments.

The values come from users and models, so reading them may take long. Large values are read in a
thread, so that the loop goes on meanwhile.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from app.concurrency.user_code import run_in_thread
from app.domain.attachments import Source, sources_of
from app.domain.data_flow import View
from app.domain.json_values import is_small
from app.domain.prompt import render
from workers.jobs import Job

#: If a job has more values and characters than this, a thread reads them.
INLINE_SIZE = 50_000

Result = TypeVar("Result")


def view_of(job: Job) -> View:
    """Return the part of the run that the attempt sees."""
    flow, claimed = job.run.workflow.data_flow, job.claimed
    return flow.view(job.agent, job.run.input, claimed.outputs, job.element)


def rendered(job: Job) -> tuple[str, Sequence[Source]]:
    """Return the prompt, and the sources of the attachments."""
    agent, view = job.agent, view_of(job)
    prompt = render(agent.prompt_template, view.values, absent=view.absent)
    return prompt, sources_of(agent, view.values, absent=view.absent)


async def beside(job: Job, function: Callable[[], Result]) -> Result:
    """Call a function that reads the values of a job, in a thread if the values are large."""
    given = (job.agent.prompt_template, job.run.input, job.claimed.outputs, job.element)
    return function() if is_small(given, INLINE_SIZE) else await run_in_thread(function)

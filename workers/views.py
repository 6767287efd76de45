"""The values that an attempt reads: its view of the run, its prompt, its attachments.

The hash of these values is stored with the result. After a retry of the run, an agent whose hash is
the same keeps its result.

The values come from users and models, so reading them may take long. Large values are read in a
thread, so that the loop goes on meanwhile.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

from app.concurrency.user_code import run_in_thread
from app.domain.attachments import Source, sources_of
from app.domain.data_flow import View
from app.domain.for_each import element_of
from app.domain.json_text import write_json
from app.domain.json_values import as_stored, is_small
from app.domain.kinds import LLM
from app.domain.prompt import render
from app.domain.sub_workflow import embedded
from app.errors import AgentError
from workers.jobs import Job

#: If a job has more values and characters than this, a thread reads them.
INLINE_SIZE = 50_000

Result = TypeVar("Result")


def view_of(job: Job, element: Mapping[str, Any] | None = None) -> View:
    """Return the part of the run that the attempt sees, or that an item of its list will see."""
    flow, outputs = job.run.workflow.data_flow, job.claimed.outputs
    if element is not None:
        reads = flow.reads_by_items(job.agent)
        outputs = {name: output for name, output in outputs.items() if name in reads}
    return flow.view(job.agent, job.run.input, outputs, job.element if element is None else element)


def rendered(job: Job, view: View) -> tuple[str, Sequence[Source]]:
    """Return the prompt, and the sources of the attachments."""
    prompt = render(job.agent.prompt_template, view.values, absent=view.absent)
    return prompt, sources_of(job.agent, view.values, absent=view.absent)


def read(job: Job) -> Any:
    """Return all that an attempt works on, and note its hash.

    For an agent with a prompt, this is the prompt with the sources of its attachments. For any
    other agent, this is the mapping of its inputs.
    """
    found, job.seen = _read(job, view_of(job), inner_names(job))
    return found


def hashes_of(job: Job, elements: Sequence[Any]) -> list[str]:
    """Return, for each element of a list, the hash that its item will have.

    If the values of an item cannot be read, its hash is empty, and equals no stored hash.
    """
    names = inner_names(job)
    return [
        _hash_of(job, element_of(job.agent, as_stored(e), index), names)
        for index, e in enumerate(elements)
    ]


def inner_names(job: Job) -> AbstractSet[str]:
    """Return the names of the agents of a job's sub-workflow; no such agent could read an input."""
    inner = embedded(job.agent)
    return {agent.name for agent in inner.agents} if inner else frozenset()


def _hash_of(job: Job, element: Mapping[str, Any], names: AbstractSet[str]) -> str:
    try:
        return _read(job, view_of(job, element), names)[1]
    except AgentError:
        return ""


def _read(job: Job, view: View, names: AbstractSet[str]) -> tuple[Any, str]:
    if job.agent.kind == LLM:
        prompt, sources = rendered(job, view)
        found: Any = (prompt, sources)
        values = [prompt, [str(source) for source in sources], _judged(job, view)]
    else:
        found = {key: value for key, value in view.inputs.items() if key not in names}
        values = [found, _judged(job, view)]
    return found, hashlib.sha256(write_json(values, sort_keys=True)).hexdigest()


def _judged(job: Job, view: View) -> Mapping[str, Any]:
    """Return the values that the condition of the agent reads."""
    condition = job.run.workflow.data_flow.condition(job.agent)
    if condition is None:
        return {}
    names = condition.agents | condition.keys | condition.elements
    named = {name: view.values.get(name) for name in names}
    return named | ({"": job.run.input} if condition.reads_input else {})


async def beside(job: Job, function: Callable[[], Result]) -> Result:
    """Call a function that reads the values of a job, in a thread if the values are large."""
    given = (job.agent.prompt_template, job.run.input, job.claimed.outputs, job.element)
    return function() if is_small(given, INLINE_SIZE) else await run_in_thread(function)

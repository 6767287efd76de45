"""Many runs in one call: ``enqueue_many`` and ``wait_all``, for programs that have a list."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from app.client.enqueues import Wanted
from app.client.process import process
from app.client.results import models_of
from app.client.run import Run, blocking, run_uuid
from app.domain.mistakes import Mistake, refuse
from app.domain.run_options import RunOptions
from app.domain.status import WorkflowStatus
from app.domain.suggestions import shortened
from app.domain.workflow import Workflow
from app.errors import WorkflowError

Input = Mapping[str, Any] | None
#: A run that is to be started: its workflow and its input, and options if it has any.
RunRequest = tuple[Workflow, Input] | tuple[Workflow, Input, RunOptions]


def enqueue_many(runs: Iterable[RunRequest]) -> list[Run]:
    """Start many runs with one transaction, and return at once: either all of them, or none.

    If there is any mistake in any run, nothing is stored, and the error names all mistakes, each
    with the place of its run, such as ``runs[3]``. A very long list is better divided into lists of
    some thousand runs, because the first run starts only after the last one is stored.

    Args:
        runs: For each run a tuple of its workflow and its input, or of its workflow, its input and
            its ``RunOptions``. Runs may have the same workflow or different workflows.

    Returns:
        The handles of the runs, in the order of the list. If a key exists already, the handle is
        that of the existing run, as with ``enqueue``.

    Raises:
        WorkflowError: If a workflow, an input or an option has a mistake, or if two runs of the
            list have the same key.
        RunConflict: If the run with a key has another workflow, input or tenant.
        UnknownModel: If the only mistake is a model without a price.
        ServiceUnavailable: If Postgres cannot be reached; in this case nothing is stored. If the
            connection is lost during the commit, the runs may be stored, all or none. With keys, a
            second call returns the same runs.

    Example:
        runs = enqueue_many((workflow, {"topic": topic}) for topic in topics)
        for topic, status in zip(topics, wait_all(runs)):
            print(topic, status)
    """
    wanted = _read(runs)
    return _handles(wanted, blocking(lambda client: client.runs.enqueue_many(wanted)))


async def enqueue_many_async(runs: Iterable[RunRequest]) -> list[Run]:
    """Do the same as ``enqueue_many``, for a caller on an event loop."""
    wanted = _read(runs)
    ids = await process().run_async(lambda client: client.runs.enqueue_many(wanted))
    return _handles(wanted, ids)


def wait_all(
    runs: Iterable[Run | str | UUID], timeout: float | None = None
) -> list[WorkflowStatus]:
    """Wait until all of the runs have ended.

    All runs share one subscription to the news from the cluster, and the news about several runs
    cost one statement. So a hundred runs cost one thread, and hardly more than one run.

    Args:
        runs: Handles or ids of runs.
        timeout: Maximum number of seconds to wait for all of them; None means no limit.

    Returns:
        The final states, in the order of ``runs``. A run that has failed raises no error.

    Raises:
        UnknownRun: If there is no such run.
        WaitTimeout: If a run has not ended after ``timeout`` seconds; all runs then go on. This is
            a TimeoutError.
    """
    ids = _ids(runs)
    return list(blocking(lambda client: client.runs.wait_all(ids, timeout)))


async def wait_all_async(
    runs: Iterable[Run | str | UUID],
    timeout: float | None = None,  # noqa: ASYNC109
) -> list[WorkflowStatus]:
    """Do the same as ``wait_all``, for a caller on an event loop."""
    ids = _ids(runs)
    return list(await process().run_async(lambda client: client.runs.wait_all(ids, timeout)))


def _read(runs: Iterable[RunRequest]) -> list[Wanted]:
    """Read the tuples of a list.

    Raises:
        WorkflowError: If an element is no such tuple; all such elements are named.
    """
    wanted: list[Wanted] = []
    mistakes: list[Mistake] = []
    for index, given in enumerate(runs):
        match given:
            case (Workflow() as workflow, input_):
                options = RunOptions()
            case (Workflow() as workflow, input_, RunOptions() as options):
                pass
            case _:
                mistakes.append(_not_a_run(index, given))
                continue
        wanted.append(
            Wanted(workflow=workflow, input={} if input_ is None else input_, options=options)
        )
    refuse(mistakes)
    return wanted


def _not_a_run(index: int, given: object) -> WorkflowError:
    place = f"runs[{index}]"
    return WorkflowError(
        f"{place} is {shortened(given)}: give (workflow, input) or "
        "(workflow, input, RunOptions(...))",
        field=place,
    )


def _handles(wanted: Sequence[Wanted], ids: Sequence[UUID]) -> list[Run]:
    return [Run(run_id, models_of(each.workflow)) for run_id, each in zip(ids, wanted, strict=True)]


def _ids(runs: Iterable[Run | str | UUID]) -> list[UUID]:
    return [run_uuid(run.id if isinstance(run, Run) else run) for run in runs]

"""The endings of attempts that neither complete nor fail by themselves, and the bounds of these."""

import random

from app.concurrency.user_code import described
from app.domain.status import AgentStatus
from app.domain.waits import LongWait
from app.errors import FunctionFailed, RunStopped
from app.storage.records import Ending
from workers.inflight import StopReason
from workers.jobs import Job

#: An agent with a shorter wait is claimed after these seconds. An attempt that ends with a wait
#: counts nowhere, so the time between two such attempts is their only bound.
SHORTEST_WAIT_S = 1.0
#: An agent with a longer wait is claimed after these seconds, because its limit may have changed.
LONGEST_WAIT_S = 3600.0


def stopped(job: Job, reason: StopReason) -> Ending | None:
    """Return the ending of an attempt that was stopped; None if its lease is lost.

    An attempt that is handed back counts nowhere. Its bound is the reason: a process drains once,
    and an operator pauses a run.
    """
    match reason:
        case StopReason.LEASE_LOST:
            return None
        case StopReason.RUN_STOPPED:
            return Ending(
                run_id=job.run.run_id,
                name=job.claimed.name,
                status=AgentStatus.CANCELLED,
                outcome="cancelled",
                event="agent_cancelled",
                error="the run was stopped",
                error_class=RunStopped.__name__,
            )
        case StopReason.DRAINED | StopReason.RUN_PAUSED:
            return Ending(
                run_id=job.run.run_id,
                name=job.claimed.name,
                status=AgentStatus.PENDING,
                outcome="handed_back",
                event="agent_handed_back",
            )


def waiting(job: Job, wait: LongWait) -> Ending:
    """Return the ending of an attempt that gives back its place during a long wait."""
    longest_s = LONGEST_WAIT_S * random.uniform(0.9, 1.0)
    return Ending(
        run_id=job.run.run_id,
        name=job.claimed.name,
        status=AgentStatus.PENDING,
        outcome="handed_back",
        event="agent_waiting",
        ready_in_s=max(min(wait.wait_s, longest_s), SHORTEST_WAIT_S),
        waits_for=wait.waits_for,
    )


def interrupted(job: Job, error: BaseException) -> FunctionFailed:
    """Return the failure of an attempt that code of a user has cancelled or interrupted.

    The failure counts. Otherwise the same code could interrupt attempt after attempt without end.
    """
    return FunctionFailed(
        f"agent {job.agent.name!r} was interrupted by code of a user in its worker "
        f"({described(error)}): functions, kinds and tools must cancel only their own tasks"
    )

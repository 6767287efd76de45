"""The endings of attempts. An ending that counts nowhere has a bound."""

import random
from dataclasses import replace
from typing import Any

from app.concurrency.error_texts import described
from app.domain.condition import Condition
from app.domain.counts import counted
from app.domain.status import AgentStatus
from app.domain.suggestions import shortened
from app.domain.waits import LongWait
from app.errors import (
    ConditionFalse,
    FunctionFailed,
    RecoveriesExhausted,
    RunStopped,
    WorkerStopped,
)
from app.failures.classification import classify
from app.storage.fan_out import Items
from app.storage.records import Ending, Outcome
from workers.inflight import Phase, StopReason
from workers.jobs import Job

#: An agent with a shorter wait is claimed after these seconds. An attempt that ends with a wait
#: counts nowhere, so the time between two such attempts is their only bound.
SHORTEST_WAIT_S = 1.0
#: An agent with a longer wait is claimed after these seconds, because its limit may have changed.
LONGEST_WAIT_S = 3600.0
#: If the worker stops during the calls of an agent, this number of times in a row, the agent is
#: quarantined, because its code may stop the workers. Deployments do not stop one agent so often.
MOST_DRAINS = 10
#: A list that had items before a retry, and has none now.
NO_ITEMS = Items(values=(), reads=(), seen=())


def completed(job: Job, output: Any) -> Ending:
    """Return the ending of an attempt with an output."""
    facts = {"output": output, "seen": job.seen, "finish_reason": job.finish_reason}
    return _ending(job, AgentStatus.COMPLETED, "completed", **facts)


def kept(job: Job) -> Ending:
    """Return the ending of an attempt whose inputs are the same as before a retry of the run.

    Its output is the output that was accepted before the retry. The attempt makes no call.
    """
    facts = {"output": job.claimed.kept, "seen": job.seen, "kept": True}
    return _ending(job, AgentStatus.COMPLETED, "completed", **facts)


def failed(job: Job, status: AgentStatus, error: Exception, *, text: str) -> Ending:
    """Return the ending of an attempt that an error has ended.

    Args:
        job: The attempt.
        status: Status of the agent from now on.
        error: The error.
        text: The text of the error that is stored.
    """
    return _ending(
        job,
        status,
        "failed",
        error=text,
        error_class=classify(error).name,
        finish_reason=job.finish_reason,
    )


def skipped(job: Job, condition: Condition) -> Ending:
    """Return the ending of an attempt whose agent has a false condition."""
    return _ending(
        job,
        AgentStatus.SKIPPED,
        "completed",
        items=NO_ITEMS if job.claimed.expanded else None,
        error=f"condition is false: {shortened(condition.text)}",
        error_class=ConditionFalse.__name__,
    )


def expanded(job: Job, items: Items) -> Ending:
    """Return the ending of an attempt that waits for the items of its list, and has no place."""
    if not items.values:
        return replace(completed(job, []), items=items if job.claimed.expanded else None)
    return _ending(job, AgentStatus.WAITING, "running", event="agent_expanded", items=items)


def stopped(job: Job, reason: StopReason) -> Ending | None:
    """Return the ending of an attempt that was stopped; None if its lease is lost.

    An attempt that is handed back counts nowhere. An attempt without a call in flight is bounded by
    the reason: a process drains once, and an operator pauses a run. But code in an attempt can ask
    its own process to stop, so the attempts that are stopped during their calls have a bound.
    """
    match reason:
        case StopReason.LEASE_LOST:
            return None
        case StopReason.RUN_STOPPED:
            return _ending(
                job,
                AgentStatus.CANCELLED,
                "cancelled",
                error="the run was stopped",
                error_class=RunStopped.__name__,
            )
        case StopReason.DRAINED if job.lease.phase is Phase.CALLING:
            return _cut_off(job)
        case StopReason.DRAINED | StopReason.RUN_PAUSED:
            return _ending(job, AgentStatus.PENDING, "handed_back", event="agent_handed_back")


def _cut_off(job: Job) -> Ending:
    """Return the ending of an attempt whose worker stops before the attempt's call has ended."""
    times = job.claimed.drained + 1
    if times > MOST_DRAINS:
        again = counted(times, "time")
        error = RecoveriesExhausted(
            f"quarantined: its workers were asked to stop during its calls, {again} in a "
            "row: look for code of the agent that ends its own process, or make its calls shorter"
        )
        return failed(job, AgentStatus.FAILED, error, text=str(error))
    return _ending(
        job,
        AgentStatus.PENDING,
        "handed_back",
        event="agent_handed_back",
        error="its worker was asked to stop, and the attempt did not end within the grace period",
        error_class=WorkerStopped.__name__,
    )


def waiting(job: Job, wait: LongWait) -> Ending:
    """Return the ending of an attempt that gives back its place during a long wait."""
    longest_s = LONGEST_WAIT_S * random.uniform(0.9, 1.0)
    return _ending(
        job,
        AgentStatus.PENDING,
        "handed_back",
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


def _ending(
    job: Job, status: AgentStatus, outcome: Outcome, *, event: str | None = None, **facts: Any
) -> Ending:
    return Ending(
        run_id=job.run.run_id,
        name=job.claimed.name,
        status=status,
        outcome=outcome,
        event=event or f"agent_{status}",
        **facts,
    )

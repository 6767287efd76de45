"""The rules for the end of a run and for partial completion, as pure functions of counts."""

from dataclasses import dataclass

from app.domain.counts import counted
from app.domain.status import WorkflowStatus

MAX_FAILED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentCounts:
    """The counts of a run's agents.

    Attributes:
        total: All agents.
        failed: Agents that failed, were rate-limited even at the last retry, or exceeded a budget.
        critical_failed: Agents that are counted in ``failed`` and have a priority of 8 or more.
        cancelled: Agents that were cancelled, mostly because a dependency failed.
        failed_items: Failed items of agents with a for_each, plus the sub-workflows that completed
            in part. The other counts do not count an item as an agent.
        decisive_items: Failed items whose agent still waits for its items and fails if any item
            fails.
    """

    total: int
    failed: int
    critical_failed: int
    cancelled: int = 0
    failed_items: int = 0
    decisive_items: int = 0


def failure_reason(counts: AgentCounts, *, allow_partial_completion: bool) -> str | None:
    """Return the reason why the run has failed, or None if the run may go on.

    A run fails if a critical agent failed, if more than half of the run's agents failed, or if any
    agent failed and partial completion is not allowed. If an item failed, the run fails only if the
    agent of the item needs all items.
    """
    if counts.decisive_items:
        return (
            f"{counted(counts.decisive_items, 'item')} failed of agents that need all items: the "
            "agents are critical (priority 8 or more), or partial completion is not allowed"
        )
    if not counts.failed:
        return None
    if not allow_partial_completion:
        return (
            f"{counts.failed} of {counted(counts.total, 'agent')} failed and partial completion is "
            "not allowed"
        )
    if counts.critical_failed:
        return f"{counted(counts.critical_failed, 'critical agent')} (priority 8 or more) failed"
    if counts.failed > counts.total * MAX_FAILED_SHARE:
        return f"more than half of the agents failed ({counts.failed} of {counts.total})"
    return None


def final_status(counts: AgentCounts) -> WorkflowStatus:
    """Return the final state of a run that has finished all its levels."""
    if counts.failed or counts.cancelled or counts.failed_items:
        return WorkflowStatus.PARTIALLY_COMPLETED
    return WorkflowStatus.COMPLETED

"""How a run ends: the rules of partial completion, as pure functions of counts."""

from dataclasses import dataclass

from app.domain.status import WorkflowStatus

MAX_FAILED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentCounts:
    """Counts of one run's agents.

    Attributes:
        total: All agents.
        failed: Those that failed, were rate-limited to the end, or exceeded a budget.
        critical_failed: Those of them with a priority of 8 or more.
        cancelled: Those that were cancelled, mostly because a dependency failed.
        failed_items: Items of for_each agents that failed (an item is no agent of the others), and
            sub-workflows that completed in part.
        decisive_items: Those of them whose agent, still waiting, fails with any of its items.
    """

    total: int
    failed: int
    critical_failed: int
    cancelled: int = 0
    failed_items: int = 0
    decisive_items: int = 0


def failure_reason(counts: AgentCounts, *, allow_partial_completion: bool) -> str | None:
    """Return why the run has failed, or None if it may go on.

    A run fails when partial completion is not allowed and an agent failed, when a critical agent
    failed, or when more than half of its agents failed. An item that failed counts with its agent.
    """
    if counts.decisive_items:
        return (
            f"{counts.decisive_items} items failed of agents that need all of theirs: they are "
            "critical (priority 8 or more), or partial completion is not allowed"
        )
    if not counts.failed:
        return None
    if not allow_partial_completion:
        return (
            f"{counts.failed} of {counts.total} agents failed and partial completion is not allowed"
        )
    if counts.critical_failed:
        return f"{counts.critical_failed} critical agents (priority 8 or more) failed"
    if counts.failed > counts.total * MAX_FAILED_SHARE:
        return f"more than half of the agents failed ({counts.failed} of {counts.total})"
    return None


def final_status(counts: AgentCounts) -> WorkflowStatus:
    """Return the state of a run that came through all its levels."""
    if counts.failed or counts.cancelled or counts.failed_items:
        return WorkflowStatus.PARTIALLY_COMPLETED
    return WorkflowStatus.COMPLETED

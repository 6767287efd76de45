"""The states of agents and runs, and which of them are final."""

from enum import StrEnum


class AgentStatus(StrEnum):
    """State of an agent run.

    PENDING -> RUNNING -> COMPLETED, or back to PENDING for a retry, a wait or a recovery. WAITING
    is an agent whose result comes from other rows, its items or the run of its sub-workflow: it
    has neither lease nor place. FAILED, RATE_LIMITED (its last retry met a 429), BUDGET_EXCEEDED,
    CANCELLED and SKIPPED are final.
    """

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXCEEDED = "budget_exceeded"

    @property
    def is_final(self) -> bool:
        """Whether an agent run in this state has ended."""
        return self not in (AgentStatus.PENDING, AgentStatus.RUNNING, AgentStatus.WAITING)

    @property
    def is_failure(self) -> bool:
        """Whether the agent ended without a result through a fault or a limit."""
        return self in (AgentStatus.FAILED, AgentStatus.RATE_LIMITED, AgentStatus.BUDGET_EXCEEDED)


class WorkflowStatus(StrEnum):
    """State of a run (and of the Workflow object that stands for it).

    PENDING -> RUNNING -> a final state. Pausing makes either of the two PAUSED; resuming makes it
    PENDING again, as does retrying what failed of a run that has ended.
    """

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    PARTIALLY_COMPLETED = "partially_completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self not in (
            WorkflowStatus.PENDING,
            WorkflowStatus.RUNNING,
            WorkflowStatus.PAUSED,
        )

"""The states of agents and runs; some of these states are final."""

from enum import StrEnum


class AgentStatus(StrEnum):
    """State of an agent run.

    An agent run goes from PENDING to RUNNING. From RUNNING it goes to a final state, or goes back
    to PENDING for a retry, a wait or a recovery. An agent is WAITING while the agent's items, or
    the run of the agent's sub-workflow, produce the agent's result. A waiting agent has neither a
    lease nor a place. The final states are COMPLETED, FAILED, RATE_LIMITED (the last retry got a
    429), BUDGET_EXCEEDED, CANCELLED and SKIPPED.
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
        """Whether the agent ended without a result because of a fault or a limit."""
        return self in (AgentStatus.FAILED, AgentStatus.RATE_LIMITED, AgentStatus.BUDGET_EXCEEDED)


class WorkflowStatus(StrEnum):
    """State of a run, and of the Workflow object of the run.

    A run goes from PENDING to RUNNING and then to a final state. If a PENDING or RUNNING run is
    paused, it becomes PAUSED. If a PAUSED run is resumed, or if the failed agents of an ended run
    are retried, the run becomes PENDING again.
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

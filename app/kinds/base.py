"""What a kind of agents must be able to do; plugins implement this too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: Settings of agents, as JSON values.
Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentContext:
    """What one attempt of an agent is told.

    Attributes:
        agent: Name of the agent.
        module: Its business module.
        workflow: Name of the workflow.
        run_id: Id of the run.
        agent_run_id: Id of the agent run; the same for all its attempts.
        attempt: Number of this attempt, from 1; it also grows when a worker died.
        tenant: Whom the run is for, or None.
        config: The agent's own settings, as JSON values.
        inputs: JSON values by name: the run's input, and the outputs of the agents that this one
            depends on; None is the output of one that failed.
        timeout_s: Seconds until the attempt is given up.
        max_output_bytes: Largest output, as JSON in UTF-8.
    """

    agent: str
    module: str
    workflow: str
    run_id: str
    agent_run_id: str
    attempt: int
    tenant: str | None
    config: Config
    inputs: Mapping[str, Any]
    timeout_s: float
    max_output_bytes: int

    @property
    def idempotency_key(self) -> str:
        """Names this attempt: who sees it twice has been asked twice."""
        return f"{self.agent_run_id}-{self.attempt}"


class AgentKind(Protocol):
    """A kind of agents."""

    def validate(self, config: Config) -> None:
        """Check an agent's settings, where its workflow is registered: without any I/O.

        Args:
            config: The settings.

        Raises:
            ValueError: Saying what is wrong; ``app.kinds.config.refuse`` makes one with the path.
        """
        ...

    # A property, so that a function that is sync or async fits.
    @property
    def run(self) -> Callable[[AgentContext], Any]:
        """Do an attempt's work, from its context to its output.

        An async function runs on the loop that it shares with all agents of the worker, so it
        must never block; a sync one runs in a thread of its own.

        Returns:
            What pydantic can write as JSON: JSON values, models, dataclasses, dates.

        Raises:
            AgentError: What its class says; a class that is not retriable is not tried again.
            Exception: Anything else is tried again, as the agent's retry policy says.
        """
        ...

"""The interface of a kind of agents; plugins implement it too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: Settings of agents, as JSON values.
Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentContext:
    """Inputs, settings and limits of one attempt of an agent.

    Attributes:
        agent: Name of the agent.
        module: Its business module.
        workflow: Name of the workflow.
        run_id: Id of the run.
        agent_run_id: Id of the agent run; the same for all its attempts.
        attempt: Number of this attempt, from 1; a worker's death also makes a new one.
        tenant: Tenant that the run belongs to, or None.
        config: The agent's own settings, as JSON values.
        inputs: JSON values by name: the run's input, and the outputs of the agents that this one
            depends on; None stands for the output of an agent that failed.
        timeout_s: Seconds until the attempt is stopped.
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
        """Name of this attempt: a server that sees it twice got the same request twice."""
        return f"{self.agent_run_id}-{self.attempt}"


class AgentKind(Protocol):
    """A kind of agents.

    A kind is for work with settings of its own. A plain function with typed parameters needs no
    kind: use ``kind="function"``.

    Example:
        class Translator:
            def validate(self, config: Config) -> None:
                check_keys(config, ("language",), required=("language",))

            async def run(self, context: AgentContext) -> str:
                return await translate(context.inputs["text"], context.config["language"])

        # pyproject.toml of the package
        # [project.entry-points."agentchord.agents"]
        # translator = "my_package:Translator"
    """

    def validate(self, config: Config) -> None:
        """Check an agent's settings when its workflow is registered, without any I/O.

        Args:
            config: The settings.

        Raises:
            ValueError: With the problem; ``app.kinds.config.refuse`` makes one with the path.
        """

    # A property, so that both a sync and an async function fit.
    @property
    def run(self) -> Callable[[AgentContext], Any]:
        """Do an attempt's work, from its context to its output.

        An async function runs on the loop that it shares with all agents of the worker, so it
        must never block; a sync one runs in a thread of its own.

        Returns:
            A value that pydantic can write as JSON: JSON values, models, dataclasses, dates.

        Raises:
            AgentError: The attempt fails; it is tried again only if the class is retriable.
            Exception: Any other error is tried again, within the agent's retry policy.
        """

"""The interface of a kind of agents. Plugins also implement this interface."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.domain.json_values import plain_json
from app.domain.tool_context import ToolContext

#: Settings of agents, as JSON values.
Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentContext:
    """Inputs, settings and limits of one attempt of an agent.

    Attributes:
        agent: Name of the agent.
        module: Business module of the agent.
        workflow: Name of the workflow.
        run_id: Id of the run.
        agent_run_id: Id of the agent run; all attempts of the agent run have the same id.
        attempt: Number of this attempt, from 1; after a worker's death there is a new attempt.
        tenant: Tenant that the run belongs to, or None.
        config: The agent's own settings, as JSON values.
        inputs: JSON values by name: the run's input, and the outputs of the agents on which this
            agent depends. The output of an agent that failed is None.
        timeout_s: Seconds until the attempt is stopped.
        max_output_bytes: Largest size of the output in bytes, as JSON in UTF-8.
        tool_context: The context for functions that take a ``ToolContext``; None outside a worker.
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
    tool_context: ToolContext | None = None

    @property
    def idempotency_key(self) -> str:
        """Unique name of this attempt; two requests with the same name are one request.

        The next attempt has another name. ``tool_context.idempotency_key`` is the same for all
        attempts.
        """
        return f"{self.agent_run_id}-{self.attempt}"


class AgentKind(Protocol):
    """A kind of agents.

    Write a kind if the work needs settings of its own. For a plain function with typed parameters,
    use ``kind="function"`` instead.

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
        """Check an agent's settings, without any I/O, when the agent's workflow is registered.

        Args:
            config: The settings.

        Raises:
            ValueError: If a setting is wrong. ``app.kinds.config.refuse`` raises a ValueError that
                also has the path of the setting.
        """

    # This is a property, so that both sync and async functions match the protocol.
    @property
    def run(self) -> Callable[[AgentContext], Any]:
        """Do the work of an attempt: take the attempt's context, and return the attempt's output.

        The async functions of all users in a worker share one event loop, which is not the loop of
        the worker. So an async function must never block. A sync function runs in a separate
        thread. The values of the context belong to the function, which may change them.

        Returns:
            A value that pydantic can write as JSON: a JSON value, a model, a dataclass or a date.

        Raises:
            AgentError: If the attempt failed; the agent is retried only if the class is retriable.
            Exception: If the attempt failed for any other reason; the agent is retried, within the
                agent's retry policy.
        """


def private(context: AgentContext) -> AgentContext:
    """Return a context with copies of all values, because code of a user may change its values."""
    return replace(context, config=plain_json(context.config), inputs=plain_json(context.inputs))

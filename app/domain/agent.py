"""An agent: one node of a workflow, with its prompt, model, tools, dependencies and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import WorkflowError

PROVIDER_OF_PREFIX = {
    "gpt": "openai",
    "chatgpt": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "codex": "openai",
    "ft:gpt": "openai",
    "claude": "anthropic",
}
#: Providers that need no configuration; each has a queue of its name, like those that do.
PROVIDERS = ("openai", "anthropic")
#: Errors that say nothing about the request, so that another provider may well answer it.
FALLBACK_ON = (
    "CircuitOpen",
    "ConnectionFailed",
    "Overloaded",
    "QuotaExhausted",
    "RateLimited",
    "ServerFailure",
)
DEFAULT_CACHE_TTL_S = 3600
CRITICAL_PRIORITY = 8
DEFAULT_MAX_RETRIES = 3


def provider_of(llm_config: Mapping[str, Any]) -> str:
    """The provider that serves a model configuration.

    Args:
        llm_config: An agent's ``llm_config``; its ``provider`` wins over the model's name.

    Returns:
        Provider name, which is also the name of its queue.

    Raises:
        WorkflowError: If no provider is given and the model's name tells none.
    """
    if provider := llm_config.get("provider"):
        return str(provider)
    model = str(llm_config.get("model", ""))
    for prefix, provider in PROVIDER_OF_PREFIX.items():
        if model.startswith(prefix):
            return provider
    raise WorkflowError(
        f"unknown model {model!r}: its name does not tell the provider; "
        'name it in the agent\'s llm_config, such as "provider": "openai"'
    )


@dataclass(frozen=True, kw_only=True)
class AgentResult:
    """What became of one agent in one run.

    Attributes:
        agent_id: Id of the agent run.
        status: Its state.
        output: A JSON value, or None.
        error: Why it failed, or None.
        tokens_used: Tokens of all its calls, failed and retried ones included.
        cost: Dollars of all its calls.
        execution_time: Seconds from start to end of the last attempt.
        started_at: Start of the first attempt (UTC).
        completed_at: End (UTC).
        retry_count: Retries made.
        metadata: Further facts, such as model and provider.
    """

    agent_id: str
    status: AgentStatus
    output: Any = None
    error: str | None = None
    tokens_used: int = 0
    cost: float = 0.0
    execution_time: float = 0.0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    retry_count: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def is_success(self) -> bool:
        """Whether the agent completed."""
        return self.status is AgentStatus.COMPLETED

    def is_retriable(self) -> bool:
        """Whether another attempt may help: only FAILED and RATE_LIMITED."""
        return self.status in (AgentStatus.FAILED, AgentStatus.RATE_LIMITED)


# Not frozen, unlike the rest of the domain: callers of execute_workflow get their agents back
# with status and result filled in.
@dataclass(kw_only=True)
class Agent:
    """An agent of a workflow.

    Attributes:
        name: Unique in its workflow; the word by which prompts and dependencies refer to it.
        module: Business module, such as HR, Finance, Inventory, Compliance or General.
        description: What it is for.
        llm_config: ``model``, and optionally ``provider``, ``temperature``, ``max_tokens``,
            ``system`` and further parameters of the provider's API.
        prompt_template: Prompt with ``{placeholder}`` for keys of the run's input and
            ``{agent}`` or ``{agent.field}`` for outputs of agents it depends on.
        tools: Functions made with ``@tool``, or names of tools that the workers load.
        dependencies: Names of the agents that must end before this one starts.
        max_retries: Retries after a failed first attempt; left at 3 it is the default policy's.
        timeout: Seconds an attempt may spend calling; waiting for limits is not counted.
        cost_limit: Dollars this agent may spend in one run, over all attempts.
        priority: 1 to 10, higher starts first; from 8 on its failure fails the run.
        retry_policy: How retries are spaced; None takes the workers' default.
        accept_missing_inputs: Whether it runs even if a dependency failed (its output is null).
        max_turns: Calls an attempt may make when the model goes on asking for tools.
        fallbacks: What to try instead, in order, when a call fails: each a part of an
            ``llm_config`` that is merged over the agent's, such as ``{"model": "gpt-4o"}``.
        fallback_on: Names of the error classes that lead to the next fallback.
        cache: Whether equal requests share one answer for an hour; ``{"ttl": 600}`` for so many
            seconds.
        status: State, filled in by the engine.
        result: Result, filled in by the engine.
    """

    name: str
    prompt_template: str
    module: str = "General"
    description: str = ""
    llm_config: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Any] = ()
    dependencies: Sequence[str] = ()
    max_retries: int = DEFAULT_MAX_RETRIES
    timeout: float = 300.0
    cost_limit: float = 1.0
    priority: int = 5
    retry_policy: RetryPolicy | None = None
    accept_missing_inputs: bool = False
    max_turns: int = 10
    fallbacks: Sequence[Mapping[str, Any]] = ()
    fallback_on: Sequence[str] = FALLBACK_ON
    cache: bool | Mapping[str, Any] = False
    status: AgentStatus = AgentStatus.PENDING
    result: AgentResult | None = None

    @property
    def model(self) -> str:
        """Name of the model it asks for."""
        return str(self.llm_config.get("model", ""))

    @property
    def provider(self) -> str:
        """Provider of its model; raises WorkflowError when it cannot be told."""
        return provider_of(self.llm_config)

    @property
    def is_critical(self) -> bool:
        """Whether its failure fails the run."""
        return self.priority >= CRITICAL_PRIORITY

    @property
    def cache_ttl_s(self) -> int | None:
        """Seconds for which its answers are shared, or None if they are not."""
        if isinstance(self.cache, Mapping):
            return int(self.cache.get("ttl") or DEFAULT_CACHE_TTL_S)
        return DEFAULT_CACHE_TTL_S if self.cache else None

    def options(self) -> list["Agent"]:
        """The agent as it calls at first, and then with each of its fallbacks."""
        return [
            self,
            *(
                replace(self, llm_config=merged_config(self.llm_config, fallback), fallbacks=())
                for fallback in self.fallbacks
            ),
        ]

    def policy(self, default: RetryPolicy) -> RetryPolicy:
        """Its own retry policy, or the default one with its ``max_retries`` if it names any."""
        if self.retry_policy is not None:
            return self.retry_policy
        if self.max_retries == DEFAULT_MAX_RETRIES:
            return default
        return replace(default, max_retries=self.max_retries)

    def reset(self) -> None:
        """Forget status and result, as before the first execution."""
        self.status = AgentStatus.PENDING
        self.result = None

    def can_execute(self, completed_agents: set[str]) -> bool:
        """Whether all its dependencies are among the completed agents' names."""
        return completed_agents.issuperset(self.dependencies)

    def to_dict(self) -> dict[str, Any]:
        """The definition as JSON values, with the current status; tools as references."""
        definition = self.definition()
        return definition | {"status": self.status.value}

    def definition(self) -> dict[str, Any]:
        """What is stored and versioned: every field but status and result, as JSON values."""
        return {
            "name": self.name,
            "module": self.module,
            "description": self.description,
            "llm_config": dict(self.llm_config),
            "prompt_template": self.prompt_template,
            "tools": [tool_reference(tool) for tool in self.tools],
            "dependencies": list(self.dependencies),
            "max_retries": self.max_retries,
            "timeout": self.timeout,
            "cost_limit": self.cost_limit,
            "priority": self.priority,
            "retry_policy": dict(vars(self.retry_policy)) if self.retry_policy else None,
            "accept_missing_inputs": self.accept_missing_inputs,
            "max_turns": self.max_turns,
            "fallbacks": [dict(fallback) for fallback in self.fallbacks],
            "fallback_on": list(self.fallback_on),
            "cache": self.cache if isinstance(self.cache, bool) else dict(self.cache),
        }

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> "Agent":
        """The inverse of ``definition``."""
        fields = dict(definition)
        if policy := fields.get("retry_policy"):
            fields["retry_policy"] = RetryPolicy(**policy)
        return cls(**fields)


def merged_config(llm_config: Mapping[str, Any], fallback: Mapping[str, Any]) -> dict[str, Any]:
    """A fallback over an agent's ``llm_config``; another model brings its own provider along."""
    merged = {**llm_config, **fallback}
    if "model" in fallback and "provider" not in fallback:
        merged.pop("provider", None)
    return merged


def tool_reference(tool: Any) -> dict[str, Any] | str:
    """A tool as it is stored with an agent: its name, or a dict with name, schema and origin."""
    if isinstance(tool, str):
        return tool
    if isinstance(tool, Mapping):
        return dict(tool)
    if hasattr(tool, "reference"):
        reference: dict[str, Any] = tool.reference()
        return reference
    raise WorkflowError(
        f"{tool!r} is not a tool: decorate the function with @tool, "
        "or give the name of a tool that the workers load"
    )

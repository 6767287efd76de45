"""An agent: one node of a workflow, with its prompt, model, tools, dependencies and limits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from app.domain.kinds import LLM, WORKFLOW, queue_of
from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import (
    CircuitOpen,
    ConnectionFailed,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    ServerFailure,
    WorkflowError,
)

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
FALLBACK_ON = tuple(
    error.__name__
    for error in (
        *(CircuitOpen, ConnectionFailed, Overloaded),
        *(QuotaExhausted, RateLimited, ServerFailure),
    )
)
DEFAULT_CACHE_TTL_S = 3600
CRITICAL_PRIORITY = 8
DEFAULT_MAX_RETRIES = 3


def provider_of_model(model: str) -> str | None:
    """Return the provider that a model's name tells, or None."""
    prefixes = (prefix for prefix in PROVIDER_OF_PREFIX if model.startswith(prefix))
    return PROVIDER_OF_PREFIX.get(next(prefixes, ""))


def provider_of(llm_config: Mapping[str, Any]) -> str:
    """Return the provider that serves a model configuration.

    Args:
        llm_config: An agent's ``llm_config``; its ``provider`` wins over the model's name.

    Returns:
        Provider name, which is also the name of its queue.

    Raises:
        WorkflowError: If no provider is given and the model's name tells none.
    """
    model = str(llm_config.get("model", ""))
    if provider := llm_config.get("provider") or provider_of_model(model):
        return str(provider)
    raise WorkflowError(
        f"unknown model {model!r}: its name does not tell the provider; "
        'name it in the agent\'s llm_config, such as "provider": "openai"'
    )


@dataclass(frozen=True, kw_only=True)
class AgentResult:
    """The result of one agent in one run.

    Attributes:
        agent_id: Id of the agent run.
        status: Its state.
        output: A JSON value, or None.
        error: Why it failed, was cancelled or skipped, or None.
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

    Example:
        Agent(
            name="reader",
            llm_config={"model": "gpt-4o-mini"},
            prompt_template="List the risks in this contract: {contract}",
        )

    It is checked when it becomes a part of a Workflow, not before.

    Attributes:
        name: Unique in its workflow; the word by which prompts and dependencies refer to it.
        module: Business module, such as HR, Finance, Inventory, Compliance or General.
        description: Its purpose.
        kind: ``llm``, ``function``, ``http``, ``workflow``, or a kind that a plugin brings.
        config: Settings of a kind other than ``llm``, as JSON values; for ``workflow`` the key
            ``workflow``, which is a Workflow, its definition, or the name of a stored one.
        llm_config: ``model``, and optionally ``provider``, ``temperature``, ``max_tokens``,
            ``system`` and further parameters of the provider's API.
        prompt_template: Prompt with ``{placeholder}`` for keys of the run's input and
            ``{agent}`` or ``{agent.field}`` for outputs of agents it depends on; only of ``llm``.
        tools: Functions made with ``@tool``, or names of tools that the workers load.
        dependencies: Names of the agents that must end before this one starts.
        max_retries: Retries after a failed first attempt; left at 3 it is the default policy's.
        timeout: Seconds an attempt may spend calling; waiting for limits is not counted.
        cost_limit: Dollars this agent may spend in one run, over all attempts.
        priority: 1 to 10, higher starts first; from 8 on its failure fails the run.
        retry_policy: How retries are spaced; None takes the workers' default.
        accept_missing_inputs: Whether it runs even if a dependency failed (its output is null).
        max_turns: Calls of a conversation, over all attempts, when the model goes on asking for
            tools.
        fallbacks: Alternatives, in order, for a call that fails: each a part of an
            ``llm_config`` that is merged over the agent's, such as ``{"model": "gpt-4o"}``.
        fallback_on: Names of the error classes that lead to the next fallback.
        cache: Whether equal requests share one answer for an hour; ``{"ttl": 600}`` for so many
            seconds.
        input_mapping: Parameter of the prompt -> where its value comes from: a path that begins
            with a key of the run's input, a key of the shared context, or an agent's name.
        output_mapping: Path in the output (``$`` is the whole of it) -> key of the run's shared
            context, by which the agents that depend on this one see it.
        condition: An expression of CEL; if it is false the agent is SKIPPED, its output is null
            and its dependents run. None always runs it.
        output_schema: Schema of the output: a JSON Schema, or a pydantic model, whose schema
            is stored. The output is then a JSON value in place of a text.
        for_each: Path of a list, such as ``input.documents`` or ``reader.items``: it runs once per
            element, which its prompt calls ``{item}`` and ``{index}``, and its output is the list
            of their outputs.
        status: State, filled in by the engine.
        result: Result, filled in by the engine.
    """

    name: str
    prompt_template: str = ""
    module: str = "General"
    description: str = ""
    kind: str = LLM
    config: Mapping[str, Any] = field(default_factory=dict)
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
    input_mapping: Mapping[str, str] = field(default_factory=dict)
    output_mapping: Mapping[str, str] = field(default_factory=dict)
    condition: str | None = None
    output_schema: Any = None
    for_each: str | None = None
    status: AgentStatus = AgentStatus.PENDING
    result: AgentResult | None = None

    @property
    def model(self) -> str:
        """Name of the model it asks for, or of the workflow it runs; else its kind."""
        if self.kind == WORKFLOW:
            return self.sub_workflow_name
        return str(self.llm_config.get("model", "")) if self.kind == LLM else self.kind

    @property
    def provider(self) -> str:
        """Provider of its model, or the queue of its kind: the name of the queue it runs on.

        Raises:
            WorkflowError: If the provider of its model is not known.
        """
        return provider_of(self.llm_config) if self.kind == LLM else queue_of(self.kind)

    @property
    def sub_workflow(self) -> Any:
        """The workflow of an agent of that kind, as it is given; None for other kinds."""
        return self.config.get("workflow") if self.kind == WORKFLOW else None

    @property
    def sub_workflow_name(self) -> str:
        """Name of the workflow that it runs; empty for other kinds."""
        given = self.sub_workflow
        name = given.get("name") if isinstance(given, Mapping) else getattr(given, "name", given)
        return str(name or "")

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
        """Return the agent as it calls at first, and then with each of its fallbacks."""
        return [
            self,
            *(
                replace(self, llm_config=merged_config(self.llm_config, fallback), fallbacks=())
                for fallback in self.fallbacks
            ),
        ]

    def policy(self, default: RetryPolicy) -> RetryPolicy:
        """Return its retry policy, or the default one with its ``max_retries`` if it names any."""
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
        """Return the definition as JSON values, with the current status; tools as references."""
        return self.definition() | {"status": self.status.value}

    def definition(self) -> dict[str, Any]:
        """Return what is stored and versioned: every field but status and result, as JSON."""
        # Only where there is one, so that definitions stored before there were kinds stay the same.
        kind = {} if self.kind == LLM else {"kind": self.kind, "config": self._stored_config()}
        return (
            kind
            | {
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
            }
            | self._asked_for()
        )

    def _stored_config(self) -> dict[str, Any]:
        return {
            key: value.definition() if hasattr(value, "definition") else value
            for key, value in self.config.items()
        }

    def _asked_for(self) -> dict[str, Any]:
        """Return fallbacks, cache, list, mappings, condition and schema, where there are any.

        A field without a value is left out, so that workflows that use none keep their content
        hash. The schema is a text, because Postgres's jsonb does not keep the order of keys, and
        models write the properties in the order in which they read them.
        """
        schema = schema_of(self.output_schema)
        fields = {
            "fallbacks": [dict(fallback) for fallback in self.fallbacks],
            "fallback_on": list(self.fallback_on) if self.fallback_on != FALLBACK_ON else None,
            "cache": dict(self.cache) if isinstance(self.cache, Mapping) else self.cache or None,
            "for_each": self.for_each,
            "input_mapping": dict(self.input_mapping),
            "output_mapping": dict(self.output_mapping),
            "condition": self.condition,
            "output_schema": None if schema is None else json.dumps(schema),
        }
        return {name: value for name, value in fields.items() if value not in ([], {}, None)}

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> "Agent":
        """Return the agent of a ``definition``."""
        fields = dict(definition)
        if policy := fields.get("retry_policy"):
            fields["retry_policy"] = RetryPolicy(**policy)
        if schema := fields.get("output_schema"):
            fields["output_schema"] = json.loads(schema)
        return cls(**fields)


def schema_of(output_schema: Any) -> Any:
    """Return an output schema as it is stored: that of a pydantic model, or the given one."""
    if hasattr(output_schema, "model_json_schema"):
        return output_schema.model_json_schema()
    return dict(output_schema) if isinstance(output_schema, Mapping) else output_schema


def merged_config(llm_config: Mapping[str, Any], fallback: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a fallback over an ``llm_config``; another model brings its own provider along."""
    merged = {**llm_config, **fallback}
    if "model" in fallback and "provider" not in fallback:
        merged.pop("provider", None)
    return merged


def tool_reference(tool: Any) -> dict[str, Any] | str:
    """Return a tool as it is stored: its name, or a dict with name, schema and origin."""
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

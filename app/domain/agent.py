"""An agent: one node of a workflow, with its prompt, model, tools, dependencies and limits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from app.domain.json_text import read_json
from app.domain.json_values import plain_json
from app.domain.kinds import LLM, WORKFLOW, queue_of
from app.domain.on_cut import OnCut
from app.domain.retry import RetryPolicy
from app.domain.schemas import schema_of
from app.domain.status import AgentStatus
from app.domain.tool_references import tool_reference
from app.errors import (
    CircuitOpen,
    ConnectionFailed,
    CredentialsFailed,
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
#: Providers that need no configuration. The queue of such a provider has the provider's name, like
#: the queue of a configured provider.
PROVIDERS = ("openai", "anthropic")
#: Errors that the request did not cause, so another provider may still answer the request.
FALLBACK_ON = tuple(
    error.__name__
    for error in (
        *(CircuitOpen, ConnectionFailed, CredentialsFailed, Overloaded),
        *(QuotaExhausted, RateLimited, ServerFailure),
    )
)
DEFAULT_CACHE_TTL_S = 3600
CRITICAL_PRIORITY = 8
DEFAULT_MAX_RETRIES = 3


@lru_cache(maxsize=1024)  # workers ask several times for each call
def provider_of_model(model: str) -> str | None:
    """Return the provider for the prefix of a model's name, or None if the prefix is unknown."""
    prefixes = (prefix for prefix in PROVIDER_OF_PREFIX if model.startswith(prefix))
    return PROVIDER_OF_PREFIX.get(next(prefixes, ""))


def provider_of(llm_config: Mapping[str, Any]) -> str:
    """Return the provider that serves a model configuration.

    Args:
        llm_config: An agent's ``llm_config``. The key ``provider`` takes precedence over the
            name of the model.

    Returns:
        Name of the provider, which is also the name of the provider's queue.

    Raises:
        WorkflowError: If no provider is given and the prefix of the model's name is unknown.
    """
    model = str(llm_config.get("model", ""))
    if provider := llm_config.get("provider") or provider_of_model(model):
        return str(provider)
    raise WorkflowError(
        f"unknown model {model!r}: no provider is known for this name; "
        'name the provider in the agent\'s llm_config, such as "provider": "openai"'
    )


@dataclass(frozen=True, kw_only=True)
class AgentResult:
    """The result of one agent in one run.

    Attributes:
        agent_id: Id of the agent run.
        status: State of the agent run.
        output: A JSON value, or None.
        error: Reason why the agent failed, was cancelled or was skipped; None otherwise.
        tokens_used: Tokens of all calls of the agent, including failed and retried calls.
        cost: Cost of all calls of the agent, in dollars.
        execution_time: Seconds from start to end of the last attempt.
        started_at: Start of the first attempt (UTC).
        completed_at: Time at which the agent ended (UTC).
        retry_count: Number of retries.
        metadata: Further facts, such as the model and the provider.
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
        """Whether another attempt may help: the state must be FAILED or RATE_LIMITED."""
        return self.status in (AgentStatus.FAILED, AgentStatus.RATE_LIMITED)


# Agent is not frozen, unlike most of the domain: execute_workflow writes the status and the result
# into the caller's agents.
@dataclass(kw_only=True)
class Agent:
    """An agent of a workflow.

    Example:
        Agent(
            name="reader",
            llm_config={"model": "gpt-4o-mini"},
            prompt_template="List the risks in this contract: {contract}",
        )

    An agent is checked when it becomes a part of a Workflow, not before.

    Attributes:
        name: Name, which is unique in the workflow. Prompts and dependencies refer to the agent by
            this name.
        module: Business module, such as HR, Finance, Inventory, Compliance or General.
        description: Purpose of the agent.
        kind: ``llm``, ``function``, ``http``, ``workflow``, or a kind that a plugin adds.
        config: Settings of a kind other than ``llm``, as JSON values. The kind ``workflow`` has
            only the key ``workflow``. The value of this key is a Workflow, the definition of a
            workflow, or the name of a stored workflow.
        llm_config: ``model``, and optionally ``provider``, ``temperature``, ``max_tokens``,
            ``system`` and further parameters of the provider's API.
        prompt_template: Prompt of an agent of the kind ``llm``. ``{key}`` stands for a key of the
            run's input. ``{agent}`` and ``{agent.field}`` stand for the output of an agent that
            this agent depends on.
        attachments: Images, PDFs and texts that are sent with the prompt. An entry is a string or a
            mapping. A string has placeholders, such as ``"{invoice}"``, and gives a path in the
            workers' folder, a URL or a data URL with base64. A mapping has one of the keys
            ``path``, ``url`` and ``base64``, and for an image optionally ``detail`` (``low`` or
            ``high``).
        tools: Functions with ``@tool``, names of tools that the workers load, and tools that run at
            the provider, such as ``{"server": "web_search", "max_uses": 2}``.
        dependencies: Names of the agents that must end before this agent starts.
        max_retries: Retries after a failed first attempt. If the value is 3, which is the default,
            the default retry policy decides the number of retries.
        timeout: Seconds that an attempt may spend on calls; the time of waiting for limits is not
            counted.
        cost_limit: Dollars that the agent may spend in one run, over all attempts.
        priority: Number from 1 to 10; agents with a higher priority start first. If an agent with a
            priority of 8 or more fails, the run fails.
        retry_policy: Number and delays of the retries; None means the workers' default policy.
        accept_missing_inputs: Whether the agent runs even if a dependency failed; the output of
            that dependency is then null.
        max_turns: Largest number of calls of the agent's conversation, over all attempts. Tools and
            continued answers need several calls.
        fallbacks: Alternatives, in order, for a call that fails. Each alternative is a part of an
            ``llm_config``, such as ``{"model": "gpt-4o"}``, and is merged over the agent's
            ``llm_config``.
        fallback_on: Names of the error classes that lead to the next fallback.
        cache: Whether equal requests share one answer for an hour. With ``{"ttl": 600}``, equal
            requests share the answer for 600 seconds.
        input_mapping: Parameter of the prompt -> path of the parameter's value. The path begins
            with a key of the run's input, a key of the shared context, or an agent's name.
        output_mapping: Path in the output (``$`` is the whole output) -> key of the run's shared
            context. The agents that depend on this agent read the value by that key.
        condition: A CEL expression. If the expression is false, the agent is SKIPPED and its output
            is null. The agents that depend on this agent are still executed. With None, the agent
            always runs. With ``for_each``, an expression on ``item`` decides on each element.
        output_schema: A JSON Schema or a pydantic model; the stored form of a pydantic model is the
            model's JSON Schema. With a schema, the output is a JSON value instead of a string.
        on_cut: Treatment of an answer that was cut at ``max_tokens``: ``fail``, ``accept``, or
            ``continue``, which asks the model to go on and joins the texts. Without a value (None),
            the agent fails if it has an ``output_schema`` or if another agent reads its output. In
            other cases the answer is accepted, and the result says so. Empty answers are treated in
            the same way.
        for_each: Path of a list, such as ``input.documents`` or ``reader.items``. The agent runs
            once per element of the list. The prompt reads the element as ``{item}`` and the index
            of the element as ``{index}``. The agent's output is the list of the outputs for all
            elements. A mapping, such as ``{"mail": "input.mails", "triage": "triage"}``, walks
            lists of the same length together; the prompt reads ``{mail}`` and ``{triage}``.
        agents: A group of agents, in place of a prompt. With ``for_each``, the whole group runs
            once per element. The agents of the group read the element as ``{item}``, and depend on
            each other as in a workflow. The output is an object with the output of each of them.
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
    attachments: Sequence[str | Mapping[str, str]] = ()
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
    on_cut: str | None = None
    for_each: str | Mapping[str, str] | None = None
    agents: Sequence["Agent"] = ()
    status: AgentStatus = AgentStatus.PENDING
    result: AgentResult | None = None

    @property
    def model(self) -> str:
        """Name of the agent's model or sub-workflow; for other kinds, the name of the kind."""
        if self.kind == WORKFLOW:
            return self.sub_workflow_name
        return str(self.llm_config.get("model", "")) if self.kind == LLM else self.kind

    @property
    def provider(self) -> str:
        """Name of the queue that carries the agent: the agent's provider, or the queue of its kind.

        Raises:
            WorkflowError: If the provider of the agent's model is not known.
        """
        return provider_of(self.llm_config) if self.kind == LLM else queue_of(self.kind)

    @property
    def sub_workflow(self) -> Any:
        """For the kind ``workflow``, the workflow that ``config`` gives; for other kinds, None."""
        return self.config.get("workflow") if self.kind == WORKFLOW else None

    @property
    def sub_workflow_name(self) -> str:
        """Name of the workflow that the agent runs; empty for agents of other kinds."""
        given = self.sub_workflow
        name = given.get("name") if isinstance(given, Mapping) else getattr(given, "name", given)
        return str(name or "")

    @property
    def is_critical(self) -> bool:
        """Whether the run fails if the agent fails."""
        return self.priority >= CRITICAL_PRIORITY

    @property
    def takes_turns(self) -> bool:
        """Whether a conversation may need several calls, for tools or to continue an answer."""
        return self.max_turns > 1 and (bool(self.tools) or self.on_cut == OnCut.CONTINUE)

    @property
    def cache_ttl_s(self) -> int | None:
        """Seconds for which the agent's answers are shared; None if answers are not shared."""
        if isinstance(self.cache, Mapping):
            return int(self.cache.get("ttl") or DEFAULT_CACHE_TTL_S)
        return DEFAULT_CACHE_TTL_S if self.cache else None

    def options(self) -> list["Agent"]:
        """Return the agent itself, and then a copy of the agent for each fallback."""
        return [
            self,
            *(
                replace(self, llm_config=merged_config(self.llm_config, fallback), fallbacks=())
                for fallback in self.fallbacks
            ),
        ]

    def policy(self, default: RetryPolicy) -> RetryPolicy:
        """Return the agent's own retry policy, or the default policy.

        A ``max_retries`` other than 3 replaces the number of retries in the default policy.
        """
        if self.retry_policy is not None:
            return self.retry_policy
        if self.max_retries == DEFAULT_MAX_RETRIES:
            return default
        return replace(default, max_retries=self.max_retries)

    def reset(self) -> None:
        """Reset status and result to their values before the first execution."""
        self.status = AgentStatus.PENDING
        self.result = None

    def can_execute(self, completed_agents: set[str]) -> bool:
        """Whether the completed agents include all dependencies of the agent."""
        return completed_agents.issuperset(self.dependencies)

    def to_dict(self) -> dict[str, Any]:
        """Return the definition and the current status as JSON values; tools become references."""
        return self.definition() | {"status": self.status.value}

    def definition(self) -> dict[str, Any]:
        """Return the stored and versioned fields as JSON: all fields except status and result."""
        # Only definitions of kinds other than llm have these two keys. So definitions that were
        # stored before kinds were introduced do not change.
        kind = {} if self.kind == LLM else {"kind": self.kind, "config": self._stored_config()}
        fields = kind | {
            "name": self.name,
            "module": self.module,
            "description": self.description,
            "llm_config": self.llm_config,
            "prompt_template": self.prompt_template,
            "tools": [tool_reference(tool) for tool in self.tools],
            "dependencies": self.dependencies,
            "max_retries": self.max_retries,
            "timeout": self.timeout,
            "cost_limit": self.cost_limit,
            "priority": self.priority,
            "retry_policy": vars(self.retry_policy) if self.retry_policy else None,
            "accept_missing_inputs": self.accept_missing_inputs,
            "max_turns": self.max_turns,
        }
        return dict(plain_json(fields | self._asked_for()))

    def _stored_config(self) -> dict[str, Any]:
        return {
            key: value.definition() if hasattr(value, "definition") else value
            for key, value in self.config.items()
        }

    def _asked_for(self) -> dict[str, Any]:
        """Return the optional fields that have a value, such as the fallbacks and the condition.

        A field without a value is left out, so that a workflow that does not use the field keeps
        its content hash. A model writes properties in the order of the schema. Postgres's jsonb
        does not keep the order of keys, so the schema is stored as a string. In ``fallback_on`` and
        ``cache``, an empty list or mapping is a value.
        """
        schema = schema_of(self.output_schema)
        fields = {
            "attachments": self.attachments or None,
            "fallbacks": self.fallbacks or None,
            "fallback_on": self.fallback_on if self.fallback_on != FALLBACK_ON else None,
            "cache": None if self.cache is False else self.cache,
            "for_each": self.for_each,
            "agents": [agent.definition() for agent in self.agents] or None,
            "input_mapping": self.input_mapping or None,
            "output_mapping": self.output_mapping or None,
            "condition": self.condition,
            "output_schema": None if schema is None else json.dumps(schema),
            "on_cut": self.on_cut,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> "Agent":
        """Return the agent with this ``definition``, whose schema may be a string or a dict."""
        fields = dict(definition)
        if isinstance(policy := fields.get("retry_policy"), Mapping):
            fields["retry_policy"] = RetryPolicy(**policy)
        if isinstance(schema := fields.get("output_schema"), str):
            fields["output_schema"] = read_json(schema, "output_schema")
        if group := fields.get("agents"):
            fields["agents"] = [
                each if isinstance(each, Agent) else cls.from_definition(each) for each in group
            ]
        return cls(**fields)


def merged_config(llm_config: Mapping[str, Any], fallback: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a fallback over an ``llm_config``.

    If the fallback has a model but no provider, the provider of the ``llm_config`` is dropped.
    """
    merged = {**llm_config, **fallback}
    if "model" in fallback and "provider" not in fallback:
        merged.pop("provider", None)
    return merged

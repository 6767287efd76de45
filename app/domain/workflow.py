"""A workflow: a named graph of agents, which is checked as soon as the graph is built."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.agent import Agent
from app.domain.agent_validation import MAX_NAME_CHARS, find_group_problem
from app.domain.data_flow import DataFlow
from app.domain.dependencies import DependencyResolver
from app.domain.json_text import read_json
from app.domain.json_values import plain_json
from app.domain.kinds import WORKFLOW
from app.domain.schemas import schema_of
from app.domain.status import AgentStatus, WorkflowStatus
from app.domain.validation import validate_workflow
from app.errors import WorkflowError


# Neither Workflow nor Agent is frozen, because the engine writes the outcome into workflows and
# agents.
@dataclass(kw_only=True)
class Workflow:
    """A graph of agents, and the rules for its runs.

    Example:
        Workflow(name="advice", agents=[reader, adviser], cost_budget=0.25, timeout=600)

    The graph is fixed when the workflow is created. Outputs can change a run in only two ways.
    First, an agent with a ``for_each`` runs once per element of a list, which may come from an
    output. Second, a condition can skip an agent.

    Attributes:
        name: Name; workflows with the same name are versions of one workflow.
        description: Purpose of the workflow.
        agents: The agents, with unique names. Among agents with the same priority, the order of
            this list decides which agent starts first.
        max_parallel_agents: Agents of one run that may be in progress at once in the whole cluster.
        cost_budget: Dollars that one run may spend.
        timeout: Seconds that a run may take, including the time of waiting.
        allow_partial_completion: Whether a run goes on if an agent that is not critical fails.
        priority: Number from 1 to 10; runs with a higher priority are admitted first.
        input_schema: A JSON Schema or a pydantic model of the run's input; the stored form of a
            pydantic model is the model's JSON Schema. An input that does not fit the schema is
            refused before the run is stored. With None, any input is accepted that has a value for
            each placeholder.
        labels: The default labels of the workflow's runs, such as ``team: claims``. The labels of a
            run override these labels. A run of a sub-workflow has the labels of the run around it.
        status: State, filled in by the engine.
        total_cost: Dollars spent, filled in by the engine.
        data_flow: The outputs that each agent sees. The definitions of the agents decide which
            outputs an agent sees.

    Raises:
        WorkflowError: If the graph has an unknown dependency, a cycle or a duplicate name, or if a
            value is out of range. The message names the agent; the error is also a ValueError.
    """

    name: str
    agents: Sequence[Agent]
    description: str = ""
    max_parallel_agents: int = 10
    cost_budget: float = 100.0
    timeout: float = 3600.0
    allow_partial_completion: bool = True
    priority: int = 5
    input_schema: Any = None
    labels: Mapping[str, str] = field(default_factory=dict)
    status: WorkflowStatus = WorkflowStatus.PENDING
    total_cost: float = 0.0
    data_flow: DataFlow = field(init=False, repr=False, compare=False)
    _by_name: dict[str, Agent] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.agents = [
            _compiled(agent, index, self.name) for index, agent in enumerate(self.agents)
        ]
        if isinstance(self.input_schema, str):  # the stored form
            self.input_schema = read_json(self.input_schema, "input_schema")
        self.data_flow = validate_workflow(self)
        self._by_name = {agent.name: agent for agent in self.agents}

    def get_agent_by_name(self, name: str) -> Agent | None:
        """Return the agent with this name, or None if no agent has the name."""
        return self._by_name.get(name)

    def get_ready_agents(self) -> list[Agent]:
        """Return, by priority, the pending agents whose dependencies completed or were skipped."""
        over = (AgentStatus.COMPLETED, AgentStatus.SKIPPED)
        done = {agent.name for agent in self.agents if agent.status in over}
        ready = [
            agent
            for agent in self.agents
            if agent.status is AgentStatus.PENDING and agent.can_execute(done)
        ]
        return sorted(ready, key=lambda agent: -agent.priority)

    def get_levels(self) -> list[list[Agent]]:
        """Return the agents level by level; an agent depends only on agents of earlier levels."""
        levels = DependencyResolver(self.agents).get_execution_levels()
        return [[self._by_name[name] for name in level] for level in levels]

    def get_statistics(self) -> dict[str, Any]:
        """Return counts of agents by status and by module, and the dollars spent so far."""
        by_status = Counter(agent.status.value for agent in self.agents)
        return {
            "total_agents": len(self.agents),
            "by_status": dict(by_status),
            "by_module": dict(Counter(agent.module for agent in self.agents)),
            "completed": by_status[AgentStatus.COMPLETED.value],
            "failed": sum(1 for agent in self.agents if agent.status.is_failure),
            "total_cost": self.total_cost,
            "total_tokens": sum(agent.result.tokens_used for agent in self.agents if agent.result),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the definition and the current state as JSON values."""
        return self.definition() | {
            "agents": [agent.to_dict() for agent in self.agents],
            "status": self.status.value,
            "total_cost": self.total_cost,
        }

    def definition(self) -> dict[str, Any]:
        """Return the stored and versioned fields as JSON values."""
        own: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "agents": (),  # agents convert themselves
            "max_parallel_agents": self.max_parallel_agents,
            "cost_budget": self.cost_budget,
            "timeout": self.timeout,
            "allow_partial_completion": self.allow_partial_completion,
            "priority": self.priority,
        }
        agents = {"agents": [agent.definition() for agent in self.agents]}
        schema = schema_of(self.input_schema)
        # Without a schema or labels, the key is left out, so that older workflows keep their
        # content hash. jsonb does not keep the order of keys, so the schema is stored as a string.
        asked = {} if schema is None else {"input_schema": json.dumps(schema)}
        labels = {"labels": dict(self.labels)} if self.labels else {}
        return dict(plain_json(own)) | agents | asked | labels

    def content_hash(self) -> str:
        """Return the SHA-256 of the definition; workflows with the same hash are one version."""
        canonical = json.dumps(self.definition(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> "Workflow":
        """Return the workflow that has this ``definition``."""
        fields = dict(definition)
        fields["agents"] = [Agent.from_definition(agent) for agent in fields["agents"]]
        return cls(**fields)


def _compiled(agent: Agent, index: int, around: str) -> Agent:
    """Turn a group of agents into an agent that runs a sub-workflow; return other agents unchanged.

    Raises:
        WorkflowError: If an agent of the group breaks a rule, or if the group has a field that only
            a single agent may have.
    """
    if not isinstance(agent, Agent) or agent.agents == ():
        return agent
    if found := find_group_problem(agent):
        name, problem = found
        raise WorkflowError(
            f"agent {agent.name!r}: {name} {problem}", field=f"agents[{index}].{name}"
        )
    try:
        inner = Workflow(name=f"{around}: {agent.name}"[-MAX_NAME_CHARS:], agents=agent.agents)
    except WorkflowError as error:
        place = f"agents[{index}].{error.field}" if error.field else f"agents[{index}]"
        raise WorkflowError(f"agent {agent.name!r}: {error}", field=place) from error
    return replace(agent, agents=(), kind=WORKFLOW, config={"workflow": inner})

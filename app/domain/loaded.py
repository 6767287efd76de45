"""The tools, functions and kinds that workers load, and the agents that need others.

A workflow only names its tools and functions; the code is in the workers. Each worker publishes the
names of its code. A queue is judged only if a live worker of the queue has published its names.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as field_of
from typing import Any

from app.domain.agent import Agent
from app.domain.kinds import FUNCTION, LLM, WORKFLOW
from app.domain.mistakes import Mistake, inside
from app.domain.server_tools import is_server_tool
from app.domain.sub_workflow import embedded
from app.domain.suggestions import did_you_mean, listed, shortened
from app.domain.tool_references import tool_reference
from app.domain.workflow import Workflow
from app.errors import WorkflowError

_NAMES = ("queues", "tools", "functions", "kinds")
#: A field of an agent, and its problem.
Problem = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """The names of the code that one worker loads.

    Attributes:
        queues: The queues that the worker serves.
        tools: Names of tools, and their ``module:name``.
        functions: ``module:name`` of functions, and names of entry points.
        kinds: Names of the kinds of agents.
        host: Name of the worker's machine.
        files: Hash of the content of each Python file of the user, by the file's path.
    """

    queues: Sequence[str]
    tools: Sequence[str]
    functions: Sequence[str]
    kinds: Sequence[str]
    host: str = ""
    files: Mapping[str, str] = field_of(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Loaded":
        """Return the object with this stored form; keys of newer versions are left out."""
        names = {name: tuple(stored.get(name, ())) for name in _NAMES}
        return cls(**names, host=stored.get("host", ""), files=stored.get("files", {}))


def find_unloaded(workflow: Workflow, workers: Sequence[Loaded]) -> Iterator[Mistake]:
    """Yield a mistake for each tool, function and kind that no live worker of its queue loads.

    Args:
        workflow: A workflow with a provider for each agent.
        workers: The live workers.
    """
    for index, agent in enumerate(workflow.agents):
        for field, problem in unloaded_by(agent, workers):
            yield WorkflowError(
                f"agent {agent.name!r}: {field} {problem}", field=f"agents[{index}].{field}"
            )
        if (inner := embedded(agent)) is not None:
            found = find_unloaded(inner, workers)
            yield from inside(found, agent.name, f"agents[{index}].config.workflow")


def unloaded_by(agent: Agent, workers: Iterable[Loaded]) -> Iterator[Problem]:
    """Yield each field of an agent that names code which no live worker of its queue loads."""
    if agent.kind == WORKFLOW or (agent.kind == LLM and not agent.tools):
        return
    queue = agent.provider
    ours = [worker for worker in workers if queue in worker.queues]
    if not ours:
        return
    if agent.kind == LLM:
        tools = _all(worker.tools for worker in ours)
        for place, tool in enumerate(agent.tools):
            name = "" if is_server_tool(tool) else _name_of(tool)
            if name and name not in tools:
                yield f"tools[{place}]", _problem("tool", name, queue, tools)
    elif agent.kind == FUNCTION:
        functions = _all(worker.functions for worker in ours)
        name = str(agent.config.get("function"))
        if name not in functions:
            yield "config.function", _problem("function", name, queue, functions)
    elif agent.kind not in (kinds := _all(worker.kinds for worker in ours)):
        yield "kind", _problem("kind", agent.kind, queue, kinds)


def queues_with_code(workflow: Workflow) -> set[str]:
    """Return the queues of the agents that run code of the user, at any depth."""
    found: set[str] = set()
    for agent in workflow.agents:
        if (inner := embedded(agent)) is not None:
            found |= queues_with_code(inner)
        elif agent.kind not in (LLM, WORKFLOW) or any(not is_server_tool(t) for t in agent.tools):
            found.add(agent.provider)
    return found


def _all(names: Iterable[Sequence[str]]) -> dict[str, None]:
    return dict.fromkeys(name for each in names for name in each)


def _name_of(tool: Any) -> str:
    reference = tool_reference(tool)
    if isinstance(reference, str):
        return reference
    return str(reference.get("import") or reference.get("name"))


def _problem(what: str, name: str, queue: str, loaded: Iterable[str]) -> str:
    names = list(loaded)
    module = name.partition(":")[0] if ":" in name else ""
    has_module = not module or any(each.startswith(f"{module}:") for each in names)
    remedy = "" if has_module else f"; list {module!r} under imports in their configuration"
    shown = [each for each in names if (":" in each) == (":" in name)]
    return (
        f"names the {what} {shortened(name)}, which no live worker of the queue {queue!r} loads "
        f"(loaded: {listed(shown)}){remedy}{did_you_mean(name, names)}"
    )

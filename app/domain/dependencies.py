"""The graph of a workflow: its execution levels, critical path and dependency chains.

All algorithms are iterative and linear in the number of agents plus dependencies. The algorithms
follow Kahn, "Topological sorting of large networks" (1962). The constructor refuses cycles, so an
instance never has a wrong graph.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from app.domain.suggestions import did_you_mean
from app.errors import WorkflowError

MAX_CYCLE_SHOWN = 20


class Node(Protocol):
    """The part of an agent that the resolver reads."""

    @property
    def name(self) -> str:
        """Unique name."""

    @property
    def dependencies(self) -> Sequence[str]:
        """Names of the nodes that this node depends on."""


class DependencyResolver:
    """Orders the agents of a workflow.

    Example:
        DependencyResolver(workflow.agents).get_execution_levels()  # [["reader"], ["adviser"]]

    Args:
        agents: The nodes in order of definition; only their names and dependencies are read.

    Raises:
        WorkflowError: If two agents have the same name, if a dependency is unknown, or if there is
            a cycle. The message shows the path of a cycle.
    """

    def __init__(self, agents: Sequence[Node]) -> None:
        self._index: dict[str, int] = {}
        for index, agent in enumerate(agents):
            if agent.name in self._index:
                raise WorkflowError(
                    f"two agents are named {agent.name!r}: rename one of them",
                    field=f"agents[{index}].name",
                )
            self._index[agent.name] = index
        self._names = list(self._index)
        self._before = [self._resolve(index, agent) for index, agent in enumerate(agents)]
        self._order, self._level = self._sort()

    def get_execution_levels(self) -> list[list[str]]:
        """Return the names level by level, and within a level in order of definition.

        An agent depends only on agents of earlier levels.
        """
        levels: list[list[str]] = [[] for _ in range(max(self._level, default=-1) + 1)]
        for name, level in zip(self._names, self._level, strict=True):
            levels[level].append(name)
        return levels

    def get_critical_path(self) -> list[str]:
        """Return the longest chain of dependencies; of several equally long chains, the first."""
        if not self._names:
            return []
        # The level of a node is the length of the longest chain that ends at this node. So the
        # search begins at a node of the last level. Each step goes to the level before.
        node = max(range(len(self._names)), key=self._level.__getitem__)
        path = [node]
        while self._level[node]:
            node = min(before for before in self._before[node] if self._is_last(before, node))
            path.append(node)
        return [self._names[node] for node in reversed(path)]

    def get_dependency_chain(self, name: str) -> list[str]:
        """Return all agents that an agent depends on, directly or indirectly, in topological order.

        Args:
            name: Name of the agent.

        Returns:
            Names of these agents, by level, and within a level in order of definition.

        Raises:
            WorkflowError: If no agent has this name.
        """
        if name not in self._index:
            raise WorkflowError(f"no agent is named {name!r}{did_you_mean(name, self._index)}")
        found: set[int] = set()
        waiting = list(self._before[self._index[name]])
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting.extend(self._before[node])
        return [self._names[node] for node in sorted(found, key=lambda n: (self._level[n], n))]

    def find_independent(self, pairs: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
        """Find the pairs in which no chain of dependencies leads from the agent to the other agent.

        Args:
            pairs: Name of an agent -> names of the agents that this agent should depend on.

        Returns:
            Each pair (agent, other) in which the agent does not depend on the other agent.
        """
        wanted = {other for others in pairs.values() for other in others}
        bit = {self._index[other]: 1 << place for place, other in enumerate(sorted(wanted))}
        # Each node has an integer with one bit per wanted node. The bit of a wanted node is set if
        # the wanted node is an ancestor of the node with the integer. So one pass over the nodes is
        # enough.
        reach = [0] * len(self._names)
        for node in self._order:
            for before in self._before[node]:
                reach[node] |= reach[before] | bit.get(before, 0)
        return [
            (name, other)
            for name, others in pairs.items()
            for other in others
            if not reach[self._index[name]] & bit[self._index[other]]
        ]

    def _resolve(self, index: int, agent: Node) -> list[int]:
        """Return the indices of an agent's dependencies, each once."""
        names = dict.fromkeys(agent.dependencies)
        unknown = [name for name in names if name not in self._index]
        if unknown:
            raise WorkflowError(
                f"agent {agent.name!r} depends on {unknown[0]!r}, which is not an agent of this "
                f"workflow{did_you_mean(unknown[0], self._index)}",
                field=f"agents[{index}].dependencies",
            )
        if agent.name in names:
            raise WorkflowError(
                f"agent {agent.name!r} depends on itself: remove it from its dependencies",
                field=f"agents[{index}].dependencies",
            )
        return [self._index[name] for name in names]

    def _sort(self) -> tuple[list[int], list[int]]:
        """Return a topological order, and each node's level."""
        after: list[list[int]] = [[] for _ in self._names]
        for node, befores in enumerate(self._before):
            for before in befores:
                after[before].append(node)
        missing = [len(befores) for befores in self._before]
        level = [0] * len(self._names)
        order = [node for node, count in enumerate(missing) if not count]
        for node in order:  # the list grows while the loop goes over it
            for follower in after[node]:
                missing[follower] -= 1
                level[follower] = max(level[follower], level[node] + 1)
                if not missing[follower]:
                    order.append(follower)
        if len(order) < len(self._names):
            raise self._cycle({node for node, count in enumerate(missing) if count})
        return order, level

    def _cycle(self, stuck: set[int]) -> WorkflowError:
        """Return the error for a cycle among the nodes that could not be ordered."""
        node = min(stuck)
        place: dict[int, int] = {}
        while node not in place:
            place[node] = len(place)
            node = min(before for before in self._before[node] if before in stuck)
        cycle = list(place)[place[node] :]
        start = cycle.index(min(cycle))
        names = [self._names[node] for node in cycle[start:] + cycle[: start + 1]]
        if len(names) > MAX_CYCLE_SHOWN:
            names[MAX_CYCLE_SHOWN // 2 : -MAX_CYCLE_SHOWN // 2] = ["..."]
        return WorkflowError(
            f"the dependencies form a cycle: {' -> '.join(names)} (each depends on the next): "
            f"remove one of them, such as {names[1]!r} from the dependencies of {names[0]!r}",
            field=f"agents[{cycle[start]}].dependencies",
        )

    def _is_last(self, before: int, node: int) -> bool:
        return self._level[before] == self._level[node] - 1

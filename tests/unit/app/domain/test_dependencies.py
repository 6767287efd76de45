import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.dependencies import DependencyResolver
from app.errors import WorkflowError


@dataclass(frozen=True)
class Node:
    name: str
    dependencies: Sequence[str] = ()


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Acyclic graphs whose nodes are defined in any order."""
    count = draw(st.integers(0, 12))
    nodes = [
        Node(f"n{index}", [f"n{other}" for other in draw(st.lists(st.integers(0, index - 1)))])
        if index
        else Node("n0")
        for index in range(count)
    ]
    return draw(st.permutations(nodes))


def reachable(nodes: Sequence[Node], name: str) -> set[str]:
    """All direct and indirect dependencies of a node, by the definition."""
    before = {node.name: node.dependencies for node in nodes}
    found: set[str] = set()
    for dependency in before[name]:
        found |= {dependency} | reachable(nodes, dependency)
    return found


@given(graphs())
def test_levels_partition_the_nodes_in_order_of_definition(nodes: list[Node]) -> None:
    order = [node.name for node in nodes]

    levels = DependencyResolver(nodes).get_execution_levels()

    assert sorted(name for level in levels for name in level) == sorted(order)
    assert all(level == sorted(level, key=order.index) for level in levels)


@given(graphs())
def test_a_level_is_one_more_than_the_deepest_dependency(nodes: list[Node]) -> None:
    levels = DependencyResolver(nodes).get_execution_levels()

    level_of = {name: depth for depth, level in enumerate(levels) for name in level}
    for node in nodes:
        depths = [level_of[dependency] for dependency in node.dependencies]
        assert level_of[node.name] == 1 + max(depths, default=-1)


@given(graphs())
def test_the_critical_path_is_a_chain_as_long_as_there_are_levels(nodes: list[Node]) -> None:
    resolver = DependencyResolver(nodes)

    path = resolver.get_critical_path()

    before = {node.name: node.dependencies for node in nodes}
    assert len(path) == len(resolver.get_execution_levels())
    assert all(earlier in before[later] for earlier, later in pairwise(path))


@given(graphs())
def test_a_dependency_chain_has_all_that_is_needed_and_in_order(nodes: list[Node]) -> None:
    resolver = DependencyResolver(nodes)

    chains = {node.name: resolver.get_dependency_chain(node.name) for node in nodes}

    before = {node.name: node.dependencies for node in nodes}
    for name, chain in chains.items():
        assert set(chain) == reachable(nodes, name)
        assert len(chain) == len(set(chain))
        for place, dependency in enumerate(chain):
            assert set(before[dependency]) <= set(chain[:place])


@given(graphs())
def test_independent_pairs_are_those_no_chain_connects(nodes: list[Node]) -> None:
    resolver = DependencyResolver(nodes)
    names = [node.name for node in nodes]

    independent = resolver.find_independent(dict.fromkeys(names, names))

    assert set(independent) == {
        (name, other) for name in names for other in names if other not in reachable(nodes, name)
    }


def test_the_critical_path_prefers_what_is_defined_first() -> None:
    nodes = [Node("late", ["b", "a"]), Node("b"), Node("a"), Node("other", ["a"])]

    path = DependencyResolver(nodes).get_critical_path()

    assert path == ["b", "late"]


def test_no_agents_have_no_levels_and_no_path() -> None:
    resolver = DependencyResolver([])

    assert resolver.get_execution_levels() == []
    assert resolver.get_critical_path() == []


def test_a_dependency_that_is_named_twice_counts_once() -> None:
    resolver = DependencyResolver([Node("a"), Node("b", ["a", "a"])])

    assert resolver.get_execution_levels() == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("nodes", "message", "field"),
    [
        (
            [Node("start"), Node("a", ["start", "b"]), Node("b", ["c"]), Node("c", ["a"])],
            r"form a cycle: a -> b -> c -> a \(each depends on the next\)",
            "agents[1].dependencies",
        ),
        ([Node("b", ["a"]), Node("a", ["b"])], "b -> a -> b", "agents[0].dependencies"),
        ([Node("a", ["a"])], "agent 'a' depends on itself", "agents[0].dependencies"),
        (
            [Node("extractor"), Node("report", ["extracter"])],
            "'report' depends on 'extracter', .* did you mean 'extractor'",
            "agents[1].dependencies",
        ),
        ([Node("a"), Node("a")], "two agents are named 'a'", "agents[1].name"),
    ],
)
def test_a_wrong_graph_is_refused_with_the_place(
    nodes: list[Node], message: str, field: str
) -> None:
    with pytest.raises(WorkflowError, match=message) as caught:
        DependencyResolver(nodes)

    assert caught.value.field == field


def test_a_long_cycle_is_shown_in_part() -> None:
    count = 5000
    nodes = [Node(f"n{index}", [f"n{(index + 1) % count}"]) for index in range(count)]

    with pytest.raises(WorkflowError, match=r"n0 -> n1 -> .* -> \.\.\. -> .* -> n0") as caught:
        DependencyResolver(nodes)

    assert len(str(caught.value)) < 500


def test_the_chain_of_an_unknown_agent_is_refused() -> None:
    resolver = DependencyResolver([Node("extractor")])

    with pytest.raises(WorkflowError, match="did you mean 'extractor'"):
        resolver.get_dependency_chain("extractors")


@pytest.mark.parametrize("reach", [1, 9999], ids=["a chain of 10,000", "a wide graph"])
def test_ten_thousand_agents_and_fifty_thousand_edges_take_under_a_second(reach: int) -> None:
    nodes = [
        Node(f"n{index}", [f"n{max(0, index - 1 - edge * reach // 5)}" for edge in range(5)])
        if index
        else Node("n0")
        for index in range(10_000)
    ]

    started_s = time.process_time()
    resolver = DependencyResolver(nodes)
    resolver.get_execution_levels()
    resolver.get_critical_path()
    resolver.get_dependency_chain("n9999")
    taken_s = time.process_time() - started_s

    assert taken_s < 1.0

"""Conditions of workflows, and the values that they read."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.conditions.evaluator import ConditionEvaluator
from app.conditions.program import compiled
from app.domain.condition import read_condition
from app.errors import ConditionFailed, WorkflowError
from app.sandbox.processes import Sandbox
from app.sandbox.turns import Turn
from tests.support.cheapness import assert_cheap

NAMES = ("screen", "other-agent")
KEYS = ("total", "found")


def balanced(sign: str, leaf: str, levels: int) -> str:
    for _ in range(levels):
        leaf = f"({leaf}{sign}{leaf})"
    return leaf


atoms = st.sampled_from(
    ["screen", "total", "found", "other_agent", "input", "screen.a", "found[0]", "1", "'x'", "[1]"]
)
calls = st.builds(
    lambda one, call, two: call.replace("A", one).replace("B", two),
    atoms,
    st.sampled_from(
        [
            *("A == B", "A != B", "A in B", "A + B", "size(A) > 1", "A.contains(B)", "A.a == B"),
            *("string(A) == B", "double(A) > 1.0", "timestamp(A) == timestamp(B)", "A < B"),
            *("A.matches('(a+)+b')", "A.all(x, x == B)", "A.exists(x, A == B)", "has(A.a)"),
            *("timestamp(A).getHours(B) == 1", "timestamp(0).getHours('file:/dev/zero') == 1"),
            *("A.map(x, A).size() > 1", "A.filter(x, x in B) == A", "A.map(y, y + y) == B"),
        ]
    ),
    atoms,
)
texts = st.one_of(
    st.builds(balanced, st.sampled_from(["&&", "||", "+", "==", " in "]), calls, st.integers(0, 8)),
    st.builds(lambda a, sign, b: f"{a} {sign} {b}", calls, st.sampled_from(["&&", "||"]), calls),
    st.builds(lambda call, count: call * count, calls, st.sampled_from([1, 10, 200])),
    st.builds(lambda sign, count: f"{sign * count}screen", st.sampled_from("!-(["), st.just(3990)),
    st.text(alphabet="()[]{}'\"\\rb.,!=<>&|?: \ntotalinputscreen0123456789`/+-", max_size=4000),
)
values = st.one_of(
    st.builds(lambda size: list(range(size)), st.sampled_from([1, 100, 9000, 100_000])),
    st.builds(lambda text, size: text * size, st.sampled_from("a1[{<"), st.integers(0, 500_000)),
    st.builds(lambda size: {f"k{n}": [n] for n in range(size)}, st.sampled_from([1, 5000])),
    st.builds(lambda size: "[" + "10000000000000000000," * size + "1]", st.integers(0, 50_000)),
    st.builds(lambda size: "```json\n[" + "0," * size + "1]\n```", st.integers(0, 400_000)),
    st.sampled_from([None, 1, True, "positive", 10**300]),
)


@given(texts, st.fixed_dictionaries(dict.fromkeys((*NAMES, *KEYS, "input"), values)))
def test_a_condition_is_cheap(sandbox: Sandbox, text: str, given_: dict[str, Any]) -> None:
    async def attack() -> None:
        with suppress(WorkflowError, ConditionFailed):
            condition = read_condition(text, agents=NAMES, keys=KEYS)
            compiled(condition)
            await ConditionEvaluator(sandbox).holds(
                condition,
                run_input={"a": given_["input"]},
                values=given_,
                turn=Turn(None, "run"),
            )

    compiled.cache_clear()
    assert_cheap(attack)

"""The outputs of functions and kinds as JSON values, which are kept unchanged or refused."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from app.domain.json_values import is_plain
from app.errors import OutputRefused, ResultTooLarge
from app.kinds.outputs import json_output


class Answer(BaseModel):
    day: date
    notes: tuple[str, ...] = ()


def output(value: Any, max_bytes: int = 1000) -> Any:
    return json_output(value, agent="a", max_bytes=max_bytes)


def test_models_and_dates_become_json() -> None:
    assert output({"a": Answer(day=date(2026, 1, 2), notes=("x",))}) == {
        "a": {"day": "2026-01-02", "notes": ["x"]}
    }


def endless() -> Iterator[int]:
    while True:
        yield 1


def doubled(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value, value]
    return value


ENDLESS: dict[str, Callable[[], Any]] = {
    "count": itertools.count,
    "generator": endless,
    "callable": lambda: iter(int, 1),
    "inner": lambda: {"a": [endless()]},
    "nested": lambda: (endless() for _ in range(2)),
    "doubled": lambda: doubled(60),
    "doubled in a generator": lambda: (doubled(60) for _ in range(1)),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_value_without_an_end_is_refused(name: str) -> None:
    with pytest.raises(ResultTooLarge, match="more than 1,000 parts"):
        output(ENDLESS[name]())


def test_an_iterator_is_a_list_and_a_value_may_be_named_twice() -> None:
    shared = {"a": (n for n in (1, 2))}

    assert output([map(str, (1, 2)), iter([[3]])]) == [["1", "2"], [[3]]]
    assert output(shared) == {"a": [1, 2]}
    assert output(doubled(2)) == [[1, 1], [1, 1]]


@dataclass
class Note:
    text: str


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("a\x00", "output"),
        ({"a": [r"\u0000", "\x00"]}, "output.a[1]"),
        ({"a\x00": 1}, "output has a key"),
        ({"a": Note("\x00")}, "output.a.text"),
        ({"a": Note("\ud800")}, "output.a.text"),
        ({"\ud800": 1}, "output has a key"),
    ],
)
def test_characters_that_postgres_cannot_keep_are_refused_and_named(value: Any, place: str) -> None:
    with pytest.raises(OutputRefused) as refused:
        output(value)

    assert place in str(refused.value)
    assert "NUL character" in str(refused.value) or "surrogate" in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [object(), float("nan"), {"a": [float("inf")]}, "\ud800", 2**2000, {"a": {1: object()}}],
)
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(OutputRefused, match="agent 'a'"):
        output(value)


def test_what_contains_itself_or_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    loop: list[Any] = []
    loop.append(loop)

    for value in (deep, loop):
        with pytest.raises(OutputRefused):
            output(value)


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(ResultTooLarge, match="returned 1,002 bytes, the limit is 1,000"):
        output("x" * 1000)


class Text(str):
    __slots__ = ()


def test_only_small_values_of_the_types_of_json_are_plain() -> None:
    assert is_plain({"a": [1, 2.5, None, True, "x", ()]})
    assert not is_plain("x" * 10_001)
    assert not is_plain([0] * 10_001)
    for odd in (Text("x"), {Text("x"): 1}, [date(2026, 1, 2)], Answer(day=date(2026, 1, 2)), {1}):
        assert not is_plain(odd)

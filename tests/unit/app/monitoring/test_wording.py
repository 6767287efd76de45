"""Counts and names as parts of sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.counts import counted
from app.monitoring.wording import names, seconds_of
from tests.support.names import spelled_out

ELEMENTS = st.builds(
    "{}[{}]{}".format,
    st.sampled_from(("a", "b", "a[1]/c")),
    st.integers(min_value=0, max_value=30),
    st.sampled_from(("", "/d", "/d/e")),
)
NAMES = st.lists(st.one_of(st.sampled_from(("a", "b", "long-name")), ELEMENTS), max_size=60)


@given(NAMES)
def test_every_name_can_be_read_from_the_text(all_names: list[str]) -> None:
    text = names(all_names, most=1000)

    assert sorted(spelled_out(text)) == sorted(set(all_names))


@given(NAMES, st.integers(min_value=0, max_value=9))
def test_names_that_are_not_written_are_counted(all_names: list[str], most: int) -> None:
    text, _, rest = names(all_names, most=most).partition(" and ")

    hidden = int(rest.split()[0]) if rest else 0
    assert len(spelled_out(text)) + hidden == len(set(all_names))


@pytest.mark.parametrize(
    ("all_names", "expected"),
    [
        (["a", "b"], "a, b"),
        (["a[0]", "a[1]", "a[2]", "a[7]", "a"], "a[0-2, 7], a"),
        (["a[3]/x", "a[4]/x", "a[4]/y"], "a[3-4]/x, a[4]/y"),
        ([f"n{number}" for number in range(9)], "n0, n1, n2, n3, n4 and 4 more"),
    ],
)
def test_the_elements_of_a_list_share_one_name(all_names: list[str], expected: str) -> None:
    assert names(all_names) == expected


@pytest.mark.parametrize(
    ("number", "noun", "plural", "expected"),
    [
        (0, "call", "", "0 calls"),
        (1, "call", "", "1 call"),
        (1200, "call", "", "1,200 calls"),
        (1, "retry", "retries", "1 retry"),
        (2, "retry", "retries", "2 retries"),
    ],
)
def test_a_count_agrees_with_its_noun(number: int, noun: str, plural: str, expected: str) -> None:
    assert counted(number, noun, plural) == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (99, "99.0 s"), (180, "3 min"), (9000, "2.5 h")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert seconds_of(seconds) == text

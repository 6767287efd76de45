"""Strategies for JSON values that are stored, with the numbers that are easily changed."""

import math
from typing import Any

from hypothesis import strategies as st

from app.domain.json_values import MAX_INTEGER_BITS

MAX_INTEGER = (1 << MAX_INTEGER_BITS) - 1
#: Integers at the limits of doubles and of 64 bits, and as long as an integer may be.
NOTABLE_INTEGERS = [
    sign * (1 << bits) + offset
    for bits in (53, 63, 64, 65, 127, MAX_INTEGER_BITS - 1)
    for sign in (1, -1)
    for offset in (-1, 0, 1)
] + [MAX_INTEGER, -MAX_INTEGER, 10**22, 10**23]
NOTABLE_DOUBLES = [
    0.1,
    1e15,
    1e16,
    1e22,
    1e23,
    1.5e300,
    -1e16,
    1e-7,
    5e-324,
    1.7976931348623157e308,
]

integers = st.sampled_from(NOTABLE_INTEGERS) | st.integers(-MAX_INTEGER, MAX_INTEGER)
doubles = st.sampled_from(NOTABLE_DOUBLES) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
#: Values that a run's input and the outputs of agents may be.
json_values = st.recursive(
    st.none() | st.booleans() | integers | doubles | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
#: Values that are not JSON, or that no text can hold without a change.
refused_values = st.sampled_from(
    [math.nan, math.inf, -math.inf, MAX_INTEGER + 1, -MAX_INTEGER - 1, 10**5000, "\ud800", "\0"]
)


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of the same types; 0.0 counts as -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)

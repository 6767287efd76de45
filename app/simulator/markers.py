"""Markers in a prompt, such as `[[sim:status=429,times=2]]`, control the answer to that prompt.

A marker has `key=value` pairs and flags, separated by commas. A prompt may have several markers.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.simulator.faults import FAULT_KINDS, Fault

_MARKER = re.compile(r"\[\[sim:(.*?)\]\]", re.DOTALL)
_FLAGS = frozenset(FAULT_KINDS) - {"status", "slow"}


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The settings of one marker.

    With `times=N`, the marker applies only to the first N equal prompts.
    """

    times: int | None = None
    fault: Fault | None = None
    latency_s: float | None = None
    time_to_first_token_s: float | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    tool_turns: int | None = None
    invalid_turns: int | None = None
    reply: str | None = None
    refused: bool | None = None
    cut_calls: bool | None = None
    searches: int | None = None
    search_errors: int | None = None
    programs: int | None = None
    pauses: int | None = None


NOTHING = Marker()

#: For each key of a marker, the name of the field and the function that reads the value.
_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "times": ("times", int),
    "latency": ("latency_s", float),
    "ttft": ("time_to_first_token_s", float),
    "output_tokens": ("output_tokens", int),
    "cached_tokens": ("cached_tokens", int),
    "cache_write_tokens": ("cache_write_tokens", int),
    "reasoning_tokens": ("reasoning_tokens", int),
    "tool_turns": ("tool_turns", int),
    "invalid_turns": ("invalid_turns", int),
    "searches": ("searches", int),
    "search_errors": ("search_errors", int),
    "programs": ("programs", int),
    "pauses": ("pauses", int),
}
#: For each flag that is no fault, the name of the field that the flag sets.
_FIELDS_OF_FLAGS = {"refuse": "refused", "cut_calls": "cut_calls"}
_FAULT_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "status": ("status", int),
    "code": ("code", str),
    "retry_after": ("retry_after_s", float),
}


def markers_in(text: str) -> tuple[Marker, ...]:
    """Read the markers of a prompt.

    Raises:
        ValueError: If a marker has an unknown key or a value of the wrong type.
    """
    if "[[sim:" not in text:
        return ()
    return tuple(_parse(body) for body in _MARKER.findall(text))


def without_markers(text: str) -> str:
    """Return the prompt without the markers."""
    return _MARKER.sub("", text).strip() if "[[sim:" in text else text


def active(markers: Sequence[Marker], nth: int) -> Marker:
    """Merge the markers that apply to the n-th request (from 1) of the same prompt.

    If two markers have the same key, the first marker decides. If a prompt has
    `[[sim:status=500,times=1]]` before `[[sim:status=429,times=3]]`, the prompt's first request
    gets 500, the next two requests get 429, and all later requests succeed.
    """
    merged: dict[str, Any] = {}
    for marker in reversed(markers):
        if marker.times is None or nth <= marker.times:
            merged |= {name: value for name, value in vars(marker).items() if value is not None}
    return Marker(**merged)


@lru_cache(maxsize=1024)
def _parse(body: str) -> Marker:
    if body.startswith("reply="):
        return Marker(reply=body.removeprefix("reply="))
    values: dict[str, Any] = {}
    fault: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in body.split(","))):
        key, _, value = item.partition("=")
        if key in _FLAGS and not value:
            fault["kind"] = key
        elif item in _FIELDS_OF_FLAGS:
            values[_FIELDS_OF_FLAGS[item]] = True
        elif known := _VALUES.get(key):
            values |= _converted(item, value, *known)
        elif known := _FAULT_VALUES.get(key):
            fault |= _converted(item, value, *known)
        else:
            words = ", ".join(
                sorted({*_FLAGS, *_FIELDS_OF_FLAGS, *_VALUES, *_FAULT_VALUES, "reply"})
            )
            raise ValueError(f"unknown simulator marker {item!r}: use one of {words}")
    if fault:
        values["fault"] = Fault(**{"kind": "status", **fault})
    return Marker(**values)


def _converted(item: str, value: str, field: str, convert: Callable[[str], Any]) -> dict[str, Any]:
    try:
        return {field: convert(value)}
    except ValueError:
        raise ValueError(
            f"simulator marker {item!r} has no number: write {item.partition('=')[0]}=1"
        ) from None

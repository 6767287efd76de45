"""The events of a run's history as lines of text, each with its level."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.events import Level, level_of
from app.domain.plain_text import one_line

#: Facts that have a place of their own in the line.
PLACED = frozenset(("agent", "error", "error_class"))


@dataclass(frozen=True, kw_only=True, slots=True)
class EventLine:
    """An event as a line of text.

    Attributes:
        level: The level of the event; the levels are those of log lines.
        subject: The agent's name, or ``run``.
        text: Description of the event, in one line.
    """

    level: Level
    subject: str
    text: str


def event_line(type_: str, data: Mapping[str, Any], attempt: int | None) -> EventLine:
    """Write an event as a line; if the type is unknown, the line also has the event's facts.

    Args:
        type_: Type of the event, such as ``agent_retrying``.
        data: Facts of the event.
        attempt: Number of the agent's attempt; None if the event belongs to no attempt.
    """
    subject = str(data.get("agent") or "run")
    words = type_.partition("_")[2] if type_.startswith(("agent_", "run_")) else type_
    said = words.replace("_", " ") or type_
    if attempt is not None and attempt > 1:
        said += f" (attempt {attempt})"
    facts = [_fact(name, value) for name, value in data.items() if name not in PLACED]
    if facts:
        said += f", {', '.join(facts)}"
    if error := data.get("error"):
        kind = data.get("error_class")
        said += f": {kind}: {error}" if kind else f": {error}"
    return EventLine(level=level_of(type_), subject=subject, text=one_line(said))


def _fact(name: str, value: Any) -> str:
    if name.endswith("_s") and isinstance(value, int | float):
        return f"{name.removesuffix('_s').replace('_', ' ')} {value:g} s"
    if isinstance(value, Mapping):
        spent = ", ".join(f"{seconds:g} s for {what}" for what, seconds in value.items())
        return f"{name} {spent}"
    return f"{name.replace('_', ' ')} {value}"

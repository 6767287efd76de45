"""The catalogue of events: everything that a run's history may say, and how much it matters.

An event is written in the transaction that makes it true, so the history has every event that
happened and no other. ``about`` says which step a type belongs to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Level(StrEnum):
    """How much an event matters, in ascending order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Place in the order."""
        return list(Level).index(self)


class About(StrEnum):
    """The step that an event belongs to."""

    RUN = "run"
    AGENT = "agent"
    CALL = "call"
    TOOL = "tool"
    BUDGET = "budget"
    LIMIT = "limit"
    BREAKER = "breaker"
    WORKER = "worker"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvent:
    """One event, with the run it belongs to.

    Attributes:
        id: Grows in the order in which the history lists events.
        run_id: The run.
        agent_run_id: The agent run, or None.
        attempt: Its attempt, or None.
        type: Name of its type, one of ``CATALOGUE``.
        at: When it was written (UTC, by the database's clock).
        data: Facts by name, such as the agent's.
    """

    id: int
    run_id: UUID
    agent_run_id: UUID | None
    attempt: int | None
    type: str
    at: datetime
    data: Mapping[str, Any]

    @property
    def level(self) -> Level:
        """How much it matters."""
        return level_of(self.type)


@dataclass(frozen=True, kw_only=True, slots=True)
class EventType:
    """One kind of event.

    Attributes:
        name: As it stands in the history.
        about: The step it belongs to.
        level: How much it matters.
        help: Its meaning, in one line.
        facts: Names of the facts it may carry; none of them is a prompt or an output.
    """

    name: str
    about: About
    level: Level
    help: str
    facts: Sequence[str] = ()


def _type(
    name: str, about: About, help_: str, facts: str = "", *, level: Level = Level.INFO
) -> EventType:
    return EventType(name=name, about=about, level=level, help=help_, facts=tuple(facts.split()))


_FAILURE = "agent error error_class"
_ENDED = f"{_FAILURE} waited"
_TYPES = (
    _type(
        "run_created",
        About.RUN,
        "A run was stored: nothing can lose it any more.",
        "workflow agents levels rerun_of rerun_from taken_over",
    ),
    _type("run_started", About.RUN, "It was admitted, and its first level is dispatched."),
    _type("run_continued", About.RUN, "It was admitted again, after a pause or for a retry."),
    _type(
        "run_paused", About.RUN, "It rests until it is resumed.", "time_left_s", level=Level.WARNING
    ),
    _type("run_resumed", About.RUN, "It may be admitted again."),
    _type("run_retried", About.RUN, "Its failed agents run again.", "agents cost_budget"),
    _type(
        "run_rerun",
        About.RUN,
        "A new run was made that takes over results of this one.",
        "agent run_id",
    ),
    _type("run_completed", About.RUN, "Every agent has completed or was skipped."),
    _type(
        "run_partially_completed",
        About.RUN,
        "It has ended, and some of its agents did not complete.",
        "error",
        level=Level.WARNING,
    ),
    _type("run_failed", About.RUN, "It has failed.", "error", level=Level.ERROR),
    _type("run_cancelled", About.RUN, "It was cancelled.", "error", level=Level.WARNING),
    _type("agent_started", About.AGENT, "A worker has claimed it: an attempt begins.", "agent"),
    _type(
        "agent_expanded",
        About.AGENT,
        "The list of a for_each is known; its items run now.",
        "agent items",
    ),
    _type(
        "sub_run_started",
        About.AGENT,
        "The run of a sub-workflow goes on in its place.",
        "agent run_id",
    ),
    _type(
        "agent_completed",
        About.AGENT,
        "It has completed, and its output is stored.",
        f"{_ENDED} first_token_s items failed run_id",
    ),
    _type("agent_skipped", About.AGENT, "Its condition is false.", _FAILURE),
    _type(
        "agent_retrying",
        About.AGENT,
        "The attempt has failed, and another one follows.",
        f"{_ENDED} ready_in_s",
        level=Level.WARNING,
    ),
    _type(
        "agent_failed",
        About.AGENT,
        "It has failed for good.",
        f"{_ENDED} items failed run_id",
        level=Level.ERROR,
    ),
    _type(
        "agent_rate_limited",
        About.LIMIT,
        "It has failed for good: the provider went on refusing its calls.",
        _ENDED,
        level=Level.ERROR,
    ),
    _type(
        "agent_budget_exceeded",
        About.BUDGET,
        "It has failed for good: its next call could have exceeded a budget.",
        _ENDED,
        level=Level.ERROR,
    ),
    _type(
        "agent_cancelled",
        About.AGENT,
        "It was stopped, or not started: its run was stopped, or what it needs has failed.",
        f"{_ENDED} run_id",
        level=Level.WARNING,
    ),
    _type(
        "agent_waiting",
        About.LIMIT,
        "It has to wait long for a limit, a circuit or money, and gave its place back meanwhile.",
        "agent waits_for ready_in_s waited",
        level=Level.WARNING,
    ),
    _type(
        "agent_handed_back",
        About.WORKER,
        "Its worker drains, or its run was paused: another attempt follows, which is no retry.",
        "agent waited",
        level=Level.WARNING,
    ),
    _type(
        "agent_recovered",
        About.WORKER,
        "Its worker went silent; another attempt follows.",
        _FAILURE,
        level=Level.WARNING,
    ),
    _type(
        "agent_fallback",
        About.CALL,
        "A call has failed, and another model is asked in its place.",
        f"{_FAILURE} provider model next_provider next_model",
        level=Level.WARNING,
    ),
    _type("tool_started", About.TOOL, "A tool was started.", "agent tool seconds"),
    _type("tool_finished", About.TOOL, "A tool has given its result.", "agent tool seconds"),
    _type(
        "tool_failed",
        About.TOOL,
        "A tool has failed, and its model gets the error.",
        "agent tool seconds",
        level=Level.WARNING,
    ),
    _type(
        "tool_unknown",
        About.TOOL,
        "A tool was interrupted: it may have done its work.",
        "agent tool seconds",
        level=Level.WARNING,
    ),
    _type(
        "budget_threshold",
        About.BUDGET,
        "With this booking a budget has passed one of its thresholds.",
        "scope subject period share spent_usd limit_usd",
        level=Level.WARNING,
    ),
    _type(
        "circuit_open",
        About.BREAKER,
        "It waits: the circuit of its model is open, because calls fail for all agents.",
        "agent provider model",
        level=Level.WARNING,
    ),
    _type(
        "circuit_closed",
        About.BREAKER,
        "The circuit it has waited for is closed: it goes on.",
        "agent provider model",
    ),
)

#: Every type of event by name.
CATALOGUE: Mapping[str, EventType] = {each.name: each for each in _TYPES}


#: The largest number that an id can have.
LAST_ID = 2**63 - 1


def checked_after(after: int | None) -> int:
    """Check where to go on reading a history: behind an event, or at the beginning.

    Args:
        after: Id of the last event seen; 0 or None for the beginning.

    Raises:
        ValueError: If it is no id.
    """
    if after is None:
        return 0
    if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after <= LAST_ID:
        raise ValueError(
            f"after is {after!r}: give the id of an event, which is a whole number (event.id), "
            "or 0 or None for the beginning"
        )
    return after


def level_of(name: str) -> Level:
    """Return how much events of a type matter; a type of a newer version is info."""
    return CATALOGUE[name].level if name in CATALOGUE else Level.INFO

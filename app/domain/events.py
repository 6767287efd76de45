"""The catalogue of events: every type of event in a run's history, and the type's importance.

An event is written in the same transaction as the change that it reports. So the history has
exactly the events that happened. ``about`` is the step that a type belongs to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Level(StrEnum):
    """The importance of an event, in ascending order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Place of the level in the order."""
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
    """One event of a run.

    Attributes:
        id: Id of the event; a later event in the history has a larger id.
        run_id: Id of the run.
        agent_run_id: Id of the agent run; None if the event belongs to no agent run.
        attempt: Number of the attempt; None if the event belongs to no attempt.
        type: Name of the event's type, which is a key of ``CATALOGUE``.
        at: Time at which the event was written (UTC, by the database's clock).
        data: Facts by name, such as ``agent``, which is the name of the agent.
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
        """Importance of the event."""
        return level_of(self.type)


@dataclass(frozen=True, kw_only=True, slots=True)
class EventType:
    """One type of event.

    Attributes:
        name: Name of the type in the history.
        about: Step that the events of this type belong to.
        level: Importance of the events of this type.
        help: Meaning of the type, in one line.
        facts: Names of the facts that events of this type may have; no fact is a prompt or an
            output.
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
_ANSWERED = f"{_ENDED} finish_reason"
_TYPES = (
    _type(
        "run_created",
        About.RUN,
        "The run was stored; from now on nothing can lose it.",
        "workflow agents levels labels rerun_of rerun_from taken_over",
    ),
    _type("run_started", About.RUN, "The run was admitted, and its first level is dispatched."),
    _type("run_continued", About.RUN, "The run was admitted again, after a pause or for a retry."),
    _type(
        "run_paused",
        About.RUN,
        "The run rests until it is resumed.",
        "time_left_s",
        level=Level.WARNING,
    ),
    _type("run_resumed", About.RUN, "The run may be admitted again."),
    _type(
        "run_retried",
        About.RUN,
        "The run repairs what failed, was cancelled or is partial.",
        "agents cost_budget agent",
    ),
    _type(
        "run_rerun",
        About.RUN,
        "A new run was created, which takes over results of this run.",
        "agent run_id",
    ),
    _type("run_completed", About.RUN, "Every agent has completed or was skipped."),
    _type(
        "run_partially_completed",
        About.RUN,
        "The run has ended, and some of its agents did not complete.",
        "error",
        level=Level.WARNING,
    ),
    _type("run_failed", About.RUN, "The run has failed.", "error", level=Level.ERROR),
    _type("run_cancelled", About.RUN, "The run was cancelled.", "error", level=Level.WARNING),
    _type(
        "agent_started",
        About.AGENT,
        "A worker has claimed the agent, and an attempt begins.",
        "agent",
    ),
    _type(
        "agent_expanded",
        About.AGENT,
        "The list of the for_each is known, and its items run now.",
        "agent items",
    ),
    _type(
        "sub_run_started",
        About.AGENT,
        "The run of the agent's sub-workflow goes on in place of the agent.",
        "agent run_id",
    ),
    _type(
        "agent_completed",
        About.AGENT,
        "The agent has completed, and its output is stored.",
        f"{_ANSWERED} first_token_s items failed skipped run_id kept",
    ),
    _type(
        "agent_outdated",
        About.AGENT,
        "An input of the agent has changed after a retry, so the agent runs again.",
        "agent",
    ),
    _type(
        "agent_skipped",
        About.AGENT,
        "The agent's condition is false, or its list has become shorter.",
        f"{_FAILURE} items",
    ),
    _type(
        "agent_retrying",
        About.AGENT,
        "The attempt has failed, and another attempt follows.",
        f"{_ANSWERED} ready_in_s",
        level=Level.WARNING,
    ),
    _type(
        "agent_failed",
        About.AGENT,
        "The agent has failed for good.",
        f"{_ANSWERED} items failed skipped run_id",
        level=Level.ERROR,
    ),
    _type(
        "agent_rate_limited",
        About.LIMIT,
        "The agent has failed for good, because the provider went on refusing its calls.",
        _ENDED,
        level=Level.ERROR,
    ),
    _type(
        "agent_budget_exceeded",
        About.BUDGET,
        "The agent has failed for good, because its next call could have exceeded a budget.",
        _ENDED,
        level=Level.ERROR,
    ),
    _type(
        "agent_cancelled",
        About.AGENT,
        "The agent was stopped or not started, because its run was stopped or a dependency failed.",
        f"{_ENDED} run_id",
        level=Level.WARNING,
    ),
    _type(
        "agent_waiting",
        About.LIMIT,
        "The agent has to wait long for a limit, a circuit or money, and has given its place back.",
        "agent waits_for ready_in_s waited",
        level=Level.WARNING,
    ),
    _type(
        "agent_handed_back",
        About.WORKER,
        "The worker drains, or the run was paused; another attempt follows, which is not a retry.",
        _ENDED,
        level=Level.WARNING,
    ),
    _type(
        "agent_recovered",
        About.WORKER,
        "The worker of the agent went silent, and another attempt follows.",
        _FAILURE,
        level=Level.WARNING,
    ),
    _type(
        "agent_fallback",
        About.CALL,
        "A call has failed, and another model gets the request.",
        f"{_FAILURE} provider model next_provider next_model",
        level=Level.WARNING,
    ),
    _type(
        "another_model_answered",
        About.CALL,
        "Another model than the requested one has answered; without a price, the hold is booked.",
        "agent provider model answered priced",
        level=Level.WARNING,
    ),
    _type("tool_started", About.TOOL, "A tool was started.", "agent tool seconds"),
    _type("tool_finished", About.TOOL, "A tool has returned its result.", "agent tool seconds"),
    _type(
        "tool_failed",
        About.TOOL,
        "A tool has failed, and the model gets the error.",
        "agent tool seconds",
        level=Level.WARNING,
    ),
    _type(
        "tool_unknown",
        About.TOOL,
        "A tool was interrupted, and may have done its work.",
        "agent tool seconds",
        level=Level.WARNING,
    ),
    _type(
        "budget_threshold",
        About.BUDGET,
        "With this booking, a budget has passed one of its thresholds.",
        "scope subject period share spent_usd limit_usd",
        level=Level.WARNING,
    ),
    _type(
        "circuit_open",
        About.BREAKER,
        "The agent waits because the circuit of its model is open: calls fail for all agents.",
        "agent provider model",
        level=Level.WARNING,
    ),
    _type(
        "circuit_closed",
        About.BREAKER,
        "The circuit that the agent waited for is closed, and the agent goes on.",
        "agent provider model",
    ),
)

#: Every type of event by name.
CATALOGUE: Mapping[str, EventType] = {each.name: each for each in _TYPES}


#: The largest possible id.
LAST_ID = 2**63 - 1


def checked_after(after: int | None) -> int:
    """Check and return the id of an event; a history will be read from the next event on.

    Args:
        after: Id of the last event that was seen; 0 or None for the beginning.

    Raises:
        ValueError: If ``after`` is not an id.
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
    """Return the importance of a type of event; an unknown type (of a newer version) has INFO."""
    return CATALOGUE[name].level if name in CATALOGUE else Level.INFO

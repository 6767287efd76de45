"""The protocol broken on purpose, one promise at a time: who does not notice is blind."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.money import HoldAnswer, HoldOutcome
from app.scheduler.watchdog import Watchdog
from app.storage import claims, holds, progress, records, turns

Mutation = Callable[[pytest.MonkeyPatch], None]


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """What a dead attempt has to say counts."""
    real = records._agent_row
    patch.setattr(records, "_agent_row", lambda record, money, _: real(record, money, True))


def no_watchdog(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for what was lost."""

    async def rest(_: Watchdog) -> None:
        """See nothing."""

    patch.setattr(Watchdog, "look", rest)


def no_budget_check(patch: pytest.MonkeyPatch) -> None:
    """Every hold is placed."""

    def place_all(tool_calls: Sequence[Any], *_: Any) -> list[HoldAnswer]:
        return [HoldAnswer(outcome=HoldOutcome.PLACED) for _ in tool_calls]

    patch.setattr(holds, "decide_holds", place_all)


def open_budget(patch: pytest.MonkeyPatch) -> None:
    """A cancel tells the workers, but does not close the run's budget."""
    statement = text("UPDATE budgets SET paused = false WHERE id = ANY(CAST(:ids AS uuid[]))")
    patch.setattr(progress, "CLOSE_BUDGETS", statement)


def unlocked_claims(patch: pytest.MonkeyPatch) -> None:
    """Claims count what is in progress without the run's lock."""
    statement = text("SELECT id FROM runs WHERE id = ANY(CAST(:ids AS uuid[]))")
    patch.setattr(claims, "LOCK_RUNS", statement)


def forgotten_turns(patch: pytest.MonkeyPatch) -> None:
    """A new attempt begins its conversation anew."""
    patch.setattr(turns, "READ_TURNS", text(f"SELECT * FROM ({turns.READ_TURNS}) t WHERE false"))


#: Each with words of what a simulation must find, and a seed from which on to look for it.
MUTATIONS: Mapping[str, tuple[Mutation, str, int]] = {
    "no_fence": (no_fence, "a dead attempt changed an agent run", 17),
    "no_watchdog": (no_watchdog, "has not ended", 0),
    "no_budget_check": (no_budget_check, "has failed with IntegrityError", 0),
    "open_budget": (open_budget, "holds committed after", 32),
    "forgotten_turns": (forgotten_turns, "has forgotten turn", 0),
    "unlocked_claims": (unlocked_claims, "a dead attempt changed an agent run", 6),
}

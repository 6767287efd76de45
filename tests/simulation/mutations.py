"""The protocol, with one promise broken on purpose; simulations must find each such mutation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.money import HoldAnswer, HoldOutcome
from app.failures.breakers import CircuitBreakers, Ticket
from app.scheduler.watchdog import Watchdog
from app.storage import claims, holds, progress, records, stopping, turns
from app.storage.records import CallRecord
from tests.support.circuit_model import Circuit
from workers import pipeline
from workers.calls import cache
from workers.calls import records as records_of_calls
from workers.jobs import Job
from workers.settling import Settling

Mutation = Callable[[pytest.MonkeyPatch], None]


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """The record of a dead attempt counts."""
    real = records._agent_row
    patch.setattr(records, "_agent_row", lambda record, money, _: real(record, money, True))


def no_watchdog(patch: pytest.MonkeyPatch) -> None:
    """No watchdog looks for lost work."""

    async def rest(_: Watchdog) -> None:
        """Find no lost work."""

    patch.setattr(Watchdog, "look", rest)


def no_budget_check(patch: pytest.MonkeyPatch) -> None:
    """Every hold is placed."""

    def place_all(requests: Sequence[Any], *_: Any) -> list[HoldAnswer]:
        return [HoldAnswer(outcome=HoldOutcome.PLACED) for _ in requests]

    patch.setattr(holds, "decide_holds", place_all)


def open_budget(patch: pytest.MonkeyPatch) -> None:
    """A cancel tells the workers, but does not close the run's budget."""
    statement = text("UPDATE budgets SET paused = false WHERE id = ANY(CAST(:ids AS uuid[]))")
    patch.setattr(stopping, "CLOSE_BUDGETS", statement)


def unlocked_claims(patch: pytest.MonkeyPatch) -> None:
    """Claims count the agents in progress without the run's lock."""
    statement = text("SELECT id FROM runs WHERE id = ANY(CAST(:ids AS uuid[]))")
    patch.setattr(claims, "LOCK_RUNS", statement)


def forgotten_turns(patch: pytest.MonkeyPatch) -> None:
    """A new attempt does not use the stored conversation."""
    patch.setattr(turns, "READ_TURNS", text(f"SELECT * FROM ({turns.READ_TURNS}) t WHERE false"))


def priced_cache(patch: pytest.MonkeyPatch) -> None:
    """An answer from the cache is booked as if the provider had answered."""
    real = records_of_calls.shared

    def priced(*given: Any) -> CallRecord:
        record = real(*given)
        return replace(record, cost_usd=record.saved_usd)

    patch.setattr(cache, "shared", priced)


def confused_cache(patch: pytest.MonkeyPatch) -> None:
    """All requests of a model share one answer."""
    real = cache._facts_of
    patch.setattr(cache, "_facts_of", lambda request: real(request) | {"messages": []})


def leaky_circuits(patch: pytest.MonkeyPatch) -> None:
    """Calls go through open circuits."""
    real = CircuitBreakers.admit

    async def admit(breakers: CircuitBreakers, provider: str, model: str, **_: Any) -> Ticket:
        circuit = breakers._circuits.get(f"{provider}/{model}")
        if circuit is not None and circuit.opened:
            return Ticket(breakers, circuit, "")
        return await real(breakers, provider, model)

    patch.setattr(CircuitBreakers, "admit", admit)
    patch.setattr(Ticket, "check", lambda _: None)


def many_probes(patch: pytest.MonkeyPatch) -> None:
    """A circuit that is ready for one probe lets every call through."""

    def grant(circuit: Circuit, token: str, now: float) -> bool:
        return bool(token) and circuit.until is not None and now >= circuit.until

    patch.setattr(Circuit, "_grant", grant)


def unsettled_fallbacks(patch: pytest.MonkeyPatch) -> None:
    """A fallback is called while the failed call's hold still exists."""
    real = Settling.write

    async def write(settling: Settling, tools: Sequence[Any] = (), turn: Any = None) -> bool:
        return await real(settling, tools, turn) if tools or turn else True

    patch.setattr(Settling, "write", write)


def blind_repairs(patch: pytest.MonkeyPatch) -> None:
    """After a retry, nobody compares the inputs of an agent with those of its result."""
    patch.setattr(pipeline, "hashes_of", lambda _, elements: [""] * len(elements))
    patch.setattr(Job, "is_unchanged", False)


def old_inputs(patch: pytest.MonkeyPatch) -> None:
    """A retry repairs what failed, and nothing follows."""

    async def find_none(*_: Any) -> bool:
        return False

    patch.setattr(progress, "reopen_outdated", find_none)


#: By name: the mutation, words of the error that must be found, and the first seed of the search.
MUTATIONS: Mapping[str, tuple[Mutation, str, int]] = {
    "no_fence": (no_fence, "a dead attempt changed an agent run", 4),
    "no_watchdog": (no_watchdog, "has not ended", 0),
    "no_budget_check": (no_budget_check, "has failed with IntegrityError", 0),
    "open_budget": (open_budget, "holds committed after", 13),
    "forgotten_turns": (forgotten_turns, "has forgotten turn", 0),
    "priced_cache": (priced_cache, "an answer from the cache costs", 0),
    "confused_cache": (confused_cache, "from the cache is no answer to it", 0),
    "leaky_circuits": (leaky_circuits, "a call has gone through the open circuit", 24),
    "many_probes": (many_probes, "has let a second probe through", 15),
    "unsettled_fallbacks": (unsettled_fallbacks, "before the one before it was settled", 10),
    "blind_repairs": (blind_repairs, "was paid again although its input was the same", 0),
    "old_inputs": (old_inputs, "has a result for an input that a retry has changed", 0),
    "unlocked_claims": (unlocked_claims, "a dead attempt changed an agent run", 5),
}

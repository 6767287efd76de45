"""Hundreds of clusters in one process, each drawn, broken and judged by a seed.

A failing seed tells its last steps and the command that repeats it. The tests of the tests break
the protocol on purpose and look for a seed that finds it.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.domain.money import HoldAnswer, HoldOutcome
from app.embedded import ServiceUrls
from app.storage import claims, holds, progress, records
from tests.simulation.database import Database
from tests.simulation.world import simulate

SEEDS = 200
CHUNK = 10
#: Seeds among which a broken protocol must be found.
SEARCHED = 30
Break = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def database(
    services: ServiceUrls, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database for all simulations of this process: each empties it."""
    url, name = make_url(services.database_url), f"simulation_{os.getpid()}"
    with psycopg.connect(
        host=str(url.query["host"]),
        port=int(str(url.query["port"])),
        user=url.username,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}".encode())
    made = Database(
        url.set(database=name).render_as_string(hide_password=False),
        tmp_path_factory.mktemp("simulation") / "clock",
    )
    yield made
    made.close()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_goes_wrong_nothing_is_lost_and_the_money_is_right(
    database: Database, first: int
) -> None:
    for seed in range(first, first + CHUNK):
        report = simulate(database, seed)

        assert not report.broken, f"\n{report}"


def test_the_same_seed_makes_the_same_simulation(database: Database) -> None:
    first = [simulate(database, seed) for seed in (3, 4)]
    again = [simulate(database, seed) for seed in (3, 4)]

    assert [report.digest for report in again] == [report.digest for report in first]
    assert first[0].digest != first[1].digest
    assert [report.trace for report in again] == [report.trace for report in first]


def no_fence(patch: pytest.MonkeyPatch) -> None:
    real = records._agent_row
    patch.setattr(records, "_agent_row", lambda record, money, _: real(record, money, True))


def no_budget_check(patch: pytest.MonkeyPatch) -> None:
    def place_all(wishes: Any, *_: Any) -> list[HoldAnswer]:
        return [HoldAnswer(outcome=HoldOutcome.PLACED) for _ in wishes]

    patch.setattr(holds, "decide_holds", place_all)


def a_cancel_that_leaves_the_budget_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        progress, "CLOSE_BUDGET", text("UPDATE budgets SET paused = false WHERE id = :id")
    )


def claims_that_do_not_lock_the_run(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        claims, "LOCK_RUNS", text("SELECT id FROM runs WHERE id = ANY(CAST(:ids AS uuid[]))")
    )


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (no_fence, "an attempt never ended"),
        (no_budget_check, "has failed with IntegrityError"),
        (a_cancel_that_leaves_the_budget_open, "holds committed after"),
        (claims_that_do_not_lock_the_run, "more than max_parallel_agents"),
    ],
)
def test_a_broken_protocol_is_found(
    database: Database, monkeypatch: pytest.MonkeyPatch, broken: Break, found: str
) -> None:
    broken(monkeypatch)

    assert any(found in str(simulate(database, seed)) for seed in range(SEARCHED))


def test_a_cluster_without_a_watchdog_is_found(database: Database) -> None:
    assert any(
        "has not ended" in str(simulate(database, seed, watched=False)) for seed in range(SEARCHED)
    )

"""Hundreds of clusters in one process; a seed draws, breaks and judges each cluster.

A failing seed shows its last steps and the command that repeats it. Further tests break the
protocol on purpose, and look for a seed that finds this.
"""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy.engine import make_url

from app.embedded import ServiceUrls
from tests.simulation.database import Database
from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import simulate
from tests.support.databases import clone

SEEDS = 200
CHUNK = 10
#: Seeds among which a broken protocol must be found.
SEARCHED = 60


@pytest.fixture(scope="session")  # tests of other modules may run in between
def database(services: ServiceUrls, database_template: str) -> Iterator[Database]:
    """A database for all simulations of this process; each simulation empties the database."""
    server, name = make_url(services.database_url), f"simulation_{os.getpid()}"
    made = Database(clone(server, database_template, name))
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


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_protocol_is_found(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mutate, words, first = MUTATIONS[name]
    mutate(monkeypatch)

    assert any(words in str(simulate(database, seed)) for seed in range(first, first + SEARCHED))

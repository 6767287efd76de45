"""The loop of the simulation: virtual time, and processes that freeze and die."""

import asyncio
import random
import time
from collections.abc import Iterator

import pytest

from tests.simulation.loop import EPOCH_S, Process, Stalled, VirtualLoop, virtual_time


@pytest.fixture
def jumps() -> list[float]:
    """The times that the loop's clock has shown."""
    return []


@pytest.fixture
def loop(jumps: list[float]) -> Iterator[VirtualLoop]:
    """A loop that begins at 0 s."""
    made = VirtualLoop(random.Random(1), jumps.append)
    yield made
    made.dispose()


async def tick(said: list[str], word: str) -> None:
    """Add a word to the list every second, five times."""
    for _ in range(5):
        await asyncio.sleep(1)
        said.append(word)


def test_time_jumps_to_the_next_timer(loop: VirtualLoop, jumps: list[float]) -> None:
    with virtual_time(loop):
        loop.run_until_complete(asyncio.sleep(3600))
        now = time.time()

    assert loop.time() == 3600
    assert now == EPOCH_S + 3600
    assert jumps == [EPOCH_S, EPOCH_S + 3600]


def test_a_dead_process_takes_no_further_step_and_cleans_nothing_up(loop: VirtualLoop) -> None:
    said: list[str] = []

    async def die_badly() -> None:
        try:
            await tick(said, "alive")
        finally:
            said.append("cleaned up")

    process = Process("p")
    loop.spawn(process, die_badly(), "work")
    loop.at(2.5, lambda: loop.kill(process))

    loop.run_until_complete(asyncio.sleep(10))

    assert said == ["alive", "alive"]


def test_a_frozen_process_goes_on_where_it_stood(loop: VirtualLoop) -> None:
    said: list[str] = []
    process = Process("p")
    loop.spawn(process, tick(said, "awake"), "work")
    loop.at(1.5, lambda: setattr(process, "frozen", True))
    loop.run_until_complete(asyncio.sleep(60))

    before = list(said)
    process.frozen = False
    loop.run_until_complete(asyncio.sleep(10))

    assert before == ["awake"]
    assert said == ["awake"] * 5


def test_the_seed_decides_which_process_comes_first() -> None:
    def order(seed: int) -> list[str]:
        said: list[str] = []
        loop = VirtualLoop(random.Random(seed), lambda _: None)
        for name in "abc":
            loop.spawn(Process(name), tick(said, name), "work")
        loop.run_until_complete(asyncio.sleep(10))
        loop.dispose()
        return said

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_a_loop_in_which_nothing_can_happen_any_more_says_so(loop: VirtualLoop) -> None:
    with pytest.raises(Stalled, match="nothing can happen any more"):
        loop.run_until_complete(loop.create_future())

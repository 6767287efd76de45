"""Turns of runs and tenants in the sandbox."""

import asyncio
import gc
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.turns import Turn, Turns
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio


async def order_of(
    requests: Sequence[tuple[Turn, float]], *, places: int
) -> list[tuple[Turn, float]]:
    """Let all requests wait at once, and return them in the order of their starts.

    A place is given back only when no further request can start, and the task that ends first on
    the clock of the tasks gives back its place.
    """
    turns = Turns(places, worst_s=2.0)
    started: list[int] = []
    clock_s = 0.0
    running: dict[int, float] = {}

    async def wait(number: int) -> None:
        await turns.take(requests[number][0])
        started.append(number)
        running[number] = clock_s + requests[number][1]

    waiting = [asyncio.create_task(wait(number)) for number in range(len(requests))]
    while len(started) < len(requests) or running:
        for _ in range(3):
            await asyncio.sleep(0)
        assert running, "a place is free, and nobody takes it"
        assert len(running) <= places
        number = min(running, key=lambda each: (running[each], each))
        clock_s = running.pop(number)
        turns.give_back(requests[number][0], used_s=requests[number][1])
    await asyncio.gather(*waiting)
    return [requests[number] for number in started]


async def test_a_cheap_task_waits_for_one_task_of_another_run_and_not_for_all() -> None:
    costly = [(Turn(None, "costly"), 2.0)] * 50
    cheap = [(Turn(None, "cheap"), 0.001)] * 5

    for places in (1, 2):
        started = await order_of([*costly, *cheap], places=places)

        before_the_last_cheap = started[: max(map(started.index, cheap)) + 5]
        assert before_the_last_cheap.count(costly[0]) <= 2


async def test_a_tenant_with_many_runs_has_no_more_turns_than_a_tenant_with_one_run() -> None:
    costly = [(Turn("many", number), 2.0) for number in range(50)]
    cheap = [(Turn("one", number), 0.001) for number in range(5)]

    started = await order_of([*costly, *cheap], places=2)

    assert max(map(started.index, cheap)) <= 7


async def test_a_run_leaves_a_place_free_for_others() -> None:
    turns = Turns(2, worst_s=2.0)
    await turns.take(Turn(None, "costly"))
    second = asyncio.create_task(turns.take(Turn(None, "costly")))
    await asyncio.sleep(0)

    await asyncio.wait_for(turns.take(Turn(None, "other")), scaled(5))

    assert not second.done()
    turns.give_back(Turn(None, "costly"), used_s=2.0)
    await asyncio.wait_for(second, scaled(5))


async def cpu_s_of_waiting(number: int) -> float:
    """Return the CPU time in which so many tasks of a run have their turn, one after another."""
    turns = Turns(2, worst_s=2.0)
    turn = Turn("acme", "large")

    async def work() -> None:
        await turns.take(turn)
        await asyncio.sleep(0)
        turns.give_back(turn, used_s=0.001)

    tasks = [asyncio.create_task(work()) for _ in range(number)]
    gc.disable()  # each collection looks at all objects of the test process
    try:
        begun_s = time.thread_time()
        await asyncio.gather(*tasks)
        return time.thread_time() - begun_s
    finally:
        gc.enable()


async def test_a_task_costs_the_same_however_many_tasks_of_its_run_wait() -> None:
    few_s = min([await cpu_s_of_waiting(1_000) for _ in range(3)])
    many_s = min([await cpu_s_of_waiting(10_000) for _ in range(3)])

    assert many_s < 40 * few_s  # 100 times as much if all are looked at


async def test_a_wait_that_is_cancelled_keeps_no_place() -> None:
    turns = Turns(1, worst_s=2.0)
    await turns.take(Turn(None, "first"))
    waits = [asyncio.create_task(turns.take(Turn(None, "second"))) for _ in range(2)]
    await asyncio.sleep(0)

    waits[0].cancel()
    await asyncio.sleep(0)
    turns.give_back(Turn(None, "first"), used_s=0.1)
    waits[1].cancel()  # the place is already granted, and nobody has taken it
    await asyncio.gather(*waits, return_exceptions=True)

    await asyncio.wait_for(turns.take(Turn(None, "third")), scaled(5))


requests = st.lists(
    st.tuples(
        st.builds(Turn, st.sampled_from(["a", "b", None]), st.integers(0, 3)),
        st.sampled_from([0.001, 0.5, 2.0]),
    ),
    max_size=20,
)


@given(requests, st.integers(1, 3))
async def test_every_task_has_its_turn(given_: list[tuple[Turn, float]], places: int) -> None:
    started = await order_of(given_, places=places)

    assert sorted(started, key=repr) == sorted(given_, key=repr)

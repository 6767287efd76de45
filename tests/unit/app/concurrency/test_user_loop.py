"""User code can harm its own call through its loop, and no other call."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.concurrency import user_loop
from app.concurrency.loop_thread import LoopThread
from app.concurrency.user_code import TookTooLong, UserCodeFailed, result_of, within
from tests.support import hostile_code
from tests.support.hostile_code import DEEDS, EXCEPTIONS
from tests.support.pace import scaled

ASYNC = ("at_once", "after_awaits", "wrapped", "in_group")
WAIT_S = scaled(60.0)


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    """The loop of a worker."""
    thread = LoopThread("worker")
    yield thread
    thread.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a loop of user code be lost after a fraction of a second."""
    user_loop._user_loop.forget()
    monkeypatch.setattr(user_loop, "PROBE_S", 0.05)
    monkeypatch.setattr(user_loop, "PROBES", 4)
    yield
    user_loop._user_loop.forget()


async def thread_name() -> str:
    return threading.current_thread().name


class Innocent:
    """A call with tasks of its own, which ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.place: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self.was_cancelled = threading.Event()

    async def __call__(self) -> list[str]:
        self.place, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with asyncio.timeout(WAIT_S):
                return list(await asyncio.gather(self._child("a"), self._child("b")))
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise

    async def _child(self, name: str) -> str:
        assert self._end is not None
        self.begun.set()
        ends = self._ends(self._end)
        async for _ in ends:  # a generator that is open while the other calls run
            await ends.aclose()
            return await asyncio.to_thread(str, name)
        raise AssertionError("another call has closed the generator")

    async def _ends(self, end: asyncio.Event) -> AsyncGenerator[None, None]:
        await end.wait()
        yield

    def finish(self) -> None:
        assert self.place is not None
        assert self._end is not None
        self.place.call_soon_threadsafe(self._end.set)


@given(what=st.sampled_from([*EXCEPTIONS, *DEEDS]), place=st.sampled_from(ASYNC))
def test_whatever_a_call_does_to_its_loop_the_calls_of_others_go_on(
    loop: LoopThread, what: str, place: str
) -> None:
    innocent = Innocent()

    async def attack() -> Any:
        working = asyncio.create_task(result_of(innocent.__call__))
        await asyncio.to_thread(innocent.begun.wait, WAIT_S)
        with pytest.raises(UserCodeFailed):
            await within(result_of(partial(getattr(hostile_code, place), what)), timeout_s=WAIT_S)
        later = await result_of(thread_name)
        innocent.finish()
        return await working, later

    assert loop.run(attack()) == (["a", "b"], "user code")


def test_a_call_may_cancel_its_own_tasks(loop: LoopThread) -> None:
    async def cancels() -> bool:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(WAIT_S))
            await asyncio.sleep(0)
            task.cancel()
        return task.cancelled()

    assert loop.run(result_of(cancels))


def test_a_task_that_outlives_its_call_may_be_cancelled_by_other_calls(loop: LoopThread) -> None:
    kept: list[asyncio.Task[None]] = []

    async def begin() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(WAIT_S)))

    async def end() -> bool:
        kept[0].cancel()
        await asyncio.wait(kept)
        return kept[0].cancelled()

    loop.run(result_of(begin))
    assert loop.run(result_of(end))


def test_calls_share_one_loop_so_that_modules_can_keep_clients(loop: LoopThread) -> None:
    async def place() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first = loop.run(result_of(place))
    assert loop.run(result_of(place)) is first
    assert asyncio.run(result_of(place)) is first


class Blocker:
    """A call that blocks its loop until it is told to end."""

    def __init__(self) -> None:
        self.begun, self._release = threading.Event(), threading.Event()
        self.finish = self._release.set

    async def __call__(self) -> None:
        self.begun.set()
        self._release.wait(WAIT_S)


@pytest.mark.usefixtures("impatient")
def test_a_blocked_loop_is_replaced_and_its_calls_fail_with_a_reason(loop: LoopThread) -> None:
    blocker, innocent = Blocker(), Innocent()

    async def attack() -> list[Any]:
        calls = []
        for code in (innocent, blocker):
            calls.append(asyncio.create_task(result_of(code.__call__)))
            await asyncio.to_thread(code.begun.wait, WAIT_S)
        calls.append(asyncio.create_task(result_of(thread_name)))
        return await asyncio.gather(*calls, return_exceptions=True)

    begun, culprit, not_begun = loop.run(attack())

    assert "it blocked the event loop of user code for 0.2 s" in str(culprit)
    assert "the event loop of user code was blocked by other code" in str(begun)
    assert not_begun == "user code"
    assert not innocent.was_cancelled.is_set()
    blocker.finish()
    assert innocent.was_cancelled.wait(WAIT_S)


def test_the_deadline_of_a_call_ends_the_wait_for_a_blocked_loop(loop: LoopThread) -> None:
    blocker = Blocker()

    with pytest.raises(TookTooLong):
        loop.run(within(result_of(blocker.__call__), timeout_s=0.05))
    blocker.finish()

    assert loop.run(result_of(thread_name)) == "user code"


def test_a_closed_loop_is_replaced(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def close_and_describe(_: BaseException) -> str:
        # LoopThread calls this between two runs of the loop.
        (lost,) = places
        super(type(lost), lost).close()
        return "closed"

    async def harm() -> None:
        places.append(asyncio.get_running_loop())
        asyncio.get_running_loop().call_soon(hostile_code.fail, "exit")
        await asyncio.sleep(WAIT_S)

    places: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr("app.concurrency.loop_thread.described", close_and_describe)
        with pytest.raises(UserCodeFailed, match="was closed by other code"):
            loop.run(result_of(harm))

    assert loop.run(result_of(thread_name)) == "user code"

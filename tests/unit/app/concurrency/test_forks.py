"""A child that is forked while loops and their threads are at work inherits no lock of theirs."""

import asyncio
import os
import threading
import warnings
from collections.abc import Iterator

import pytest

from app.concurrency import forks
from app.concurrency.loop_thread import LoopThread

FORKS = 40
WAIT_S = 60.0


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("client")
    yield thread
    thread.close()


def forked() -> int:
    """Fork a child that takes the lock; return its exit code, which is 1 if the lock is held."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, on purpose
        child = os.fork()
    if not child:
        os._exit(0 if LOCK.acquire(blocking=False) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


LOCK = threading.Lock()


def hold_lock() -> None:
    """Hold a lock nearly all the time, as the code of a library may do."""
    with LOCK:
        threading.Event().wait(0.005)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_fork_waits_until_loops_and_their_threads_hold_no_lock(
    loop: LoopThread, in_thread: bool
) -> None:
    is_over = threading.Event()

    async def work() -> None:
        while not is_over.is_set():
            if in_thread:
                await asyncio.to_thread(hold_lock)
            else:
                hold_lock()
                await asyncio.sleep(0)

    working = asyncio.run_coroutine_threadsafe(work(), loop.loop)
    codes = [forked() for _ in range(FORKS)]
    is_over.set()
    working.result(WAIT_S)

    assert codes == [0] * FORKS
    assert loop.run(asyncio.to_thread(str, "the parent goes on")) == "the parent goes on"


def test_a_loop_can_fork_and_a_blocked_loop_delays_a_fork_only_for_a_while(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "LOOP_S", 0.01)
    monkeypatch.setattr(forks, "THREADS_S", 0.01)
    is_over = threading.Event()

    async def fork_here() -> int:
        return forked()

    assert loop.run(fork_here()) == 0

    def block() -> None:
        is_over.wait()

    asyncio.run_coroutine_threadsafe(asyncio.to_thread(block), loop.loop)
    loop.call(block)
    assert forked() == 0
    is_over.set()
    assert loop.run(asyncio.sleep(0, "on")) == "on"

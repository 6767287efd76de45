"""A loop that stands still is found; a process that stands still as a whole is not taken for it."""

import threading
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from app.concurrency import loop_watch
from app.concurrency.loop_thread import LoopThread
from app.concurrency.loop_watch import LoopWatch
from tests.support.pace import scaled

WAIT_S = scaled(60.0)


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("watched")
    yield thread
    thread.close()


def block_until(event: threading.Event) -> None:
    event.wait(WAIT_S)


class Watched:
    """A watch, and what it says."""

    def __init__(self, loop: LoopThread, **options: Any) -> None:
        self.blocked = threading.Event()
        self.probes, self.fail = 0, False
        self.probed = threading.Condition()
        self.watch = LoopWatch(
            loop.loop,
            name="watch",
            probe_s=0.05,
            probes=5,
            on_blocked=self.blocked.set,
            on_probe=self._probe,
            **options,
        )
        self.watch.start()

    def _probe(self) -> None:
        with self.probed:
            self.probes += 1
            self.probed.notify_all()
        if self.fail:
            self.fail = False
            raise SystemExit

    def await_probes(self, count: int) -> None:
        with self.probed:
            assert self.probed.wait_for(lambda: self.probes >= count, WAIT_S)


def test_a_blocked_loop_is_found(loop: LoopThread) -> None:
    watched, release = Watched(loop), threading.Event()

    loop.call(partial(block_until, release))

    assert watched.blocked.wait(WAIT_S)
    release.set()


def test_an_exception_in_a_probe_neither_ends_the_watch_nor_counts_as_more_than_one_probe(
    loop: LoopThread,
) -> None:
    watched, release = Watched(loop), threading.Event()
    for _ in range(3):
        watched.fail = True
        watched.await_probes(watched.probes + 2)
        assert not watched.blocked.is_set()

    loop.call(partial(block_until, release))

    assert watched.blocked.wait(WAIT_S)
    release.set()


def test_a_loop_whose_check_fails_is_found_and_one_whose_check_ends_is_not(
    loop: LoopThread,
) -> None:
    fails = threading.Event()

    async def check() -> None:
        if fails.is_set():
            raise SystemExit

    watched = Watched(loop, check=check)
    watched.await_probes(10)
    assert not watched.blocked.is_set()

    fails.set()

    assert watched.blocked.wait(WAIT_S)


def test_a_loop_that_turns_is_not_blocked_and_pauses_do_not_add_up(loop: LoopThread) -> None:
    watched = Watched(loop)

    for _ in range(10):
        pause = threading.Event()
        loop.call(partial(block_until, pause))
        watched.await_probes(watched.probes + 2)
        pause.set()
        watched.await_probes(watched.probes + 2)

    assert not watched.blocked.is_set()
    watched.watch.stop()


def test_probes_that_are_late_themselves_do_not_count(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGCONT, or when a machine wakes up, the clock has moved on without the process."""
    now_s, release = [0.0], threading.Event()

    def clock() -> float:
        now_s[0] += 1.0  # each look at the clock comes a second after the last one
        return now_s[0]

    monkeypatch.setattr(loop_watch, "time", SimpleNamespace(monotonic=clock))
    loop.call(partial(block_until, release))
    watched = Watched(loop)
    watched.await_probes(20)

    assert not watched.blocked.is_set()
    monkeypatch.undo()
    assert watched.blocked.wait(WAIT_S)
    release.set()

"""Functions of an executor of daemon threads run once, side by side, and after the main thread."""

import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.concurrency import daemon_threads
from app.concurrency.daemon_threads import DaemonThreads

WAIT_S = 60.0
#: A loop in a thread is used by another thread, and by atexit, after the main thread has ended.
PROGRAM = """
import asyncio, atexit, threading
from app.concurrency.loop_thread import LoopThread
loop = LoopThread("client")
def use(where):
    print(where, loop.run(asyncio.to_thread(str, "ran")))
def late():
    threading.main_thread().join()
    use("thread")
threading.Thread(target=late).start()
atexit.register(use, "atexit")
"""


@given(most=st.sampled_from([1, 2, 7, None]), count=st.integers(0, 60))
@settings(max_examples=20)
def test_every_function_runs_once_in_no_more_threads_than_allowed(
    most: int | None, count: int
) -> None:
    threads, ran = DaemonThreads(most=most), list[tuple[int, int]]()

    futures = [
        threads.submit(lambda n=n: ran.append((n, threading.get_ident()))) for n in range(count)
    ]

    assert not wait(futures, WAIT_S).not_done
    assert sorted(n for n, _ in ran) == list(range(count))
    assert most is None or len({ident for _, ident in ran}) <= most


@given(hanging=st.integers(0, 40))
@settings(max_examples=20)
def test_without_a_limit_no_function_waits_for_functions_that_hang(hanging: int) -> None:
    threads, end = DaemonThreads(most=None), threading.Event()
    for _ in range(hanging):
        threads.submit(end.wait)
        assert threads.submit(str, "ran").result(WAIT_S) == "ran"
    end.set()


def test_the_caller_gets_every_exception() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        DaemonThreads().submit(leave).result(WAIT_S)


def test_threads_without_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_threads, "IDLE_S", 0.01)
    thread = DaemonThreads().submit(threading.current_thread).result(WAIT_S)

    thread.join(WAIT_S)

    assert not thread.is_alive()


def test_a_loop_is_of_use_after_the_main_thread_has_ended() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=WAIT_S, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "thread ran\natexit ran\n", "")

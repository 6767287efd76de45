"""An object of a process is made once, whichever threads ask first."""

import os
import threading
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.concurrency.once import once
from tests.support.pace import scaled


@settings(max_examples=20)
@given(threads=st.integers(min_value=2, max_value=64))
def test_threads_that_ask_at_the_same_time_get_one_object(threads: int) -> None:
    numbers, start, got = count(), threading.Barrier(threads), list[int]()

    @once(survives_fork=True)
    def number() -> int:
        os.sched_yield()  # let another thread ask meanwhile
        return next(numbers)

    def ask() -> None:
        start.wait()
        got.append(number())

    asking = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()

    assert got == [0] * threads


def test_after_an_error_the_next_call_tries_again() -> None:
    numbers = count()

    @once(survives_fork=True)
    def number() -> int:
        found = next(numbers)
        if not found:
            raise OSError("away")
        return found

    with pytest.raises(OSError, match="away"):
        number()
    assert (number(), number()) == (1, 1)
    assert number.forget() == 1
    assert number() == 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("survives", [True, False])
def test_a_child_that_is_forked_while_the_object_is_made_makes_its_own(survives: bool) -> None:
    making, made = threading.Event(), threading.Event()
    parent = os.getpid()

    @once(survives_fork=survives)
    def process_id() -> int:
        if os.getpid() == parent:
            making.set()
            made.wait(scaled(60))
        return os.getpid()

    maker = threading.Thread(target=process_id)
    maker.start()
    making.wait(scaled(60))
    child = os.fork()
    if not child:
        os._exit(0 if process_id() == os.getpid() else 1)
    made.set()
    maker.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

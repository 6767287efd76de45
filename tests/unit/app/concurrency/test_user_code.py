"""User code ends its own call and nothing else, whatever it raises."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import Agent, AgentResult, FailureHandler
from app.concurrency.loop_thread import LoopThread
from app.concurrency.user_code import (
    TookTooLong,
    UserCodeFailed,
    call,
    result_of,
    run_in_thread,
    within,
)
from app.domain.status import AgentStatus
from app.errors import CredentialsFailed
from app.llm.credential_cache import CredentialCache
from tests.support import hostile_code
from tests.support.hostile_code import DEEDS, EXCEPTIONS
from tests.support.pace import scaled

ASYNC = ("at_once", "after_awaits", "wrapped", "in_group")
MAX_CHARS = 200_000


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    """A loop in a thread of its own, as workers have it."""
    died = threading.Event()
    thread = LoopThread("hostile", on_death=died.set)
    yield thread
    thread.close()
    assert not died.is_set()


@given(what=st.sampled_from([*EXCEPTIONS, "recursion"]))
def test_a_call_raises_only_user_code_failed(what: str) -> None:
    thread_says: list[Exception] = []

    def caller() -> None:
        try:
            call(partial(hostile_code.fail, what))
        except Exception as error:  # noqa: BLE001
            thread_says.append(error)

    thread = threading.Thread(target=caller)
    thread.start()
    thread.join()

    (said,) = thread_says
    assert isinstance(said, UserCodeFailed)
    assert 0 < len(str(said)) <= MAX_CHARS


def test_ctrl_c_ends_the_main_thread_also_while_user_code_runs() -> None:
    with pytest.raises(KeyboardInterrupt):
        call(partial(hostile_code.fail, "interrupt"))


@given(what=st.sampled_from([*EXCEPTIONS, *DEEDS]), place=st.sampled_from(["sync", *ASYNC]))
def test_every_end_of_user_code_on_a_loop_is_an_ordinary_error(
    loop: LoopThread, what: str, place: str
) -> None:
    with pytest.raises(UserCodeFailed) as failed:
        loop.run(within(result_of(partial(getattr(hostile_code, place), what)), timeout_s=60))

    assert 0 < len(str(failed.value)) <= MAX_CHARS
    assert loop.run(asyncio.sleep(0, "the loop goes on")) == "the loop goes on"


def test_a_caller_that_is_cancelled_sees_its_own_cancellation_and_cancels_the_code(
    loop: LoopThread,
) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def slow() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def cancel_caller() -> bool:
        caller = asyncio.create_task(within(result_of(slow)))
        await asyncio.to_thread(started.wait, 60)
        caller.cancel()
        await asyncio.wait({caller})
        return caller.cancelled()

    assert loop.run(cancel_caller())
    assert cancelled.wait(scaled(60))


class Witness(Exception):
    """An exception that notes the threads in which its methods run, and in which it ends."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __str__(self) -> str:
        self.seen.append(threading.current_thread().name)
        return "seen"

    def __del__(self) -> None:
        self.seen.append(f"end in {threading.current_thread().name}")


@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_of_user_code_ends_in_the_thread_of_user_code(
    loop: LoopThread, is_async: bool
) -> None:
    seen: list[str] = []

    def sync() -> None:
        raise Witness(seen)

    async def later() -> None:
        await asyncio.sleep(0)
        raise Witness(seen)

    with pytest.raises(UserCodeFailed) as failed:
        loop.run(within(result_of(later if is_async else sync)))

    assert failed.value.traceback is not None
    assert "raise Witness(seen)" in failed.value.traceback
    gc.collect()
    assert {word.split()[-1] for word in seen} == {"code" if is_async else "tool"}
    assert any(word.startswith("end in") for word in seen)


def test_code_that_swallows_its_cancellation_is_left(loop: LoopThread) -> None:
    release = threading.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    with pytest.raises(TookTooLong):
        loop.run(within(result_of(stubborn), timeout_s=0.01))
    release.set()


@given(what=st.sampled_from([*EXCEPTIONS, *DEEDS]))
def test_every_end_of_a_tool_is_told_to_the_model(loop: LoopThread, what: str) -> None:
    output = loop.run(hostile_code.hostile_tool.call(f'{{"what": "{what}"}}'))

    assert output.is_error
    assert output.text.startswith("hostile_tool failed: ")


@given(what=st.sampled_from([*EXCEPTIONS, *DEEDS]), place=st.sampled_from(["sync", *ASYNC]))
def test_every_end_of_a_callback_is_counted(loop: LoopThread, what: str, place: str) -> None:
    function = getattr(hostile_code, place)

    def callback(*_: object) -> Any:
        return function(what)

    async def tell() -> dict[str, Any]:
        handler = FailureHandler(on_failure=callback)
        failed = AgentResult(agent_id="a", status=AgentStatus.FAILED)
        handler.tell(Agent(name="a", kind="text_processor"), failed)
        await handler.close()
        return handler.get_statistics()

    counts = loop.run(tell())

    assert (counts["callbacks"], counts["callbacks_failed"]) == (1, 1)


@given(what=st.sampled_from([*EXCEPTIONS, *DEEDS]), place=st.sampled_from(["sync", *ASYNC]))
def test_every_end_of_a_credentials_function_fails_only_its_calls(
    loop: LoopThread, what: str, place: str
) -> None:
    async def get() -> None:
        function = partial(getattr(hostile_code, place), what)
        await CredentialCache(function, path="acme:token", provider="acme").get()

    with pytest.raises(CredentialsFailed, match="repair the function acme:token, which raised"):
        loop.run(get())


@given(what=st.sampled_from(sorted(EXCEPTIONS)))
def test_a_thread_always_tells_its_end(loop: LoopThread, what: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  each exception has its own class
        loop.run(run_in_thread(partial(hostile_code.fail, what)))

    assert isinstance(raised.value, Exception)


@pytest.mark.parametrize("what", ["interrupt", "exit", "stop_loop"])
def test_a_loop_goes_on_after_what_would_end_it(loop: LoopThread, what: str) -> None:
    seen: list[Any] = []

    async def harm() -> None:
        running = asyncio.get_running_loop()
        running.call_soon(running.stop if what == "stop_loop" else partial(hostile_code.fail, what))
        running.call_soon(seen.append, "later callback")
        await asyncio.sleep(0.01)
        seen.append("same coroutine")

    loop.run(harm())

    assert seen == ["later callback", "same coroutine"]

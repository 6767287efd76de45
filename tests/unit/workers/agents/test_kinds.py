"""A thread of user code writes and destroys the value that a kind returns."""

import gc
import threading
from collections import UserString
from collections.abc import Iterator
from typing import Any

import pytest

from app.concurrency.loop_thread import LoopThread
from app.concurrency.user_code import UserCodeFailed, result_of
from app.kinds.registry import KindRegistry
from tests.support.kind_contexts import agent_context
from workers.agents.kinds import KindAgents


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    """The loop of a worker."""
    thread = LoopThread("worker")
    yield thread
    thread.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_an_output_of_user_code_ends_in_the_thread_that_writes_it(
    loop: LoopThread, is_async: bool
) -> None:
    seen: list[str] = []

    class Output(UserString):
        def __del__(self) -> None:
            seen.append(threading.current_thread().name)

    def sync() -> Any:
        return Output("x")

    async def later() -> Any:
        return sync()

    class Returning(KindRegistry):
        async def run(self, *_: Any) -> Any:
            return await result_of(later if is_async else sync)

    async def output() -> Any:
        kinds = KindAgents(Returning(), max_output_bytes=100)
        return await kinds._output("function", agent_context())

    with pytest.raises(UserCodeFailed):
        loop.run(output())

    gc.collect()
    assert seen == ["tool"]

"""The async functions under an event loop that is not asyncio's."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app import Agent, Run, Workflow, enqueue_async, enqueue_many_async, wait_all_async
from app.client.client import Client
from app.client.process import Process
from app.concurrency.loop_thread import LoopThread
from app.errors import NoEventLoop

RUN_ID = "01a22aab-0502-7768-99ea-5d4a25b700a6"


WORKFLOW = Workflow(name="w", agents=[Agent(name="a", kind="text_processor")])


@pytest.mark.parametrize(
    "call",
    [
        lambda: enqueue_async(WORKFLOW),
        lambda: Run(RUN_ID).wait_async(),
        lambda: enqueue_many_async([(WORKFLOW, {})]),
        lambda: wait_all_async([RUN_ID]),
    ],
    ids=["enqueue_async", "wait_async", "enqueue_many_async", "wait_all_async"],
)
def test_an_async_function_outside_asyncio_says_what_to_do_and_does_nothing(
    call: Callable[[], Coroutine[Any, Any, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Untouched(Client):
        def __init__(self) -> None:
            """Connect to nothing."""

    loop = LoopThread("client")
    for module in ("run", "many"):
        monkeypatch.setattr(
            f"app.client.{module}.process", lambda: Process(loop=loop, client=Untouched())
        )
    coroutine = call()

    # trio, too, drives a coroutine by send().
    with pytest.raises(NoEventLoop, match=r"trio\.to_thread\.run_sync\(enqueue, workflow\)"):
        coroutine.send(None)
    loop.close()

"""Code of a hostile user: functions, a tool, a kind and a callback that raise any exception.

The places and the exceptions have names, so that a test can choose them by the input of a run.
"""

import asyncio
import contextvars
import ctypes
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, NoReturn

import uvloop
from pydantic import AfterValidator, BaseModel, model_serializer

import app.concurrency.loop_thread
import app.concurrency.user_code
import workers.endings
import workers.heartbeat
import workers.lifecycle
import workers.runtime
from app import Agent, AgentResult, tool
from app.domain.waits import LongWait
from app.errors import AgentError
from app.kinds.base import AgentContext


class Unreadable(Exception):
    """An exception whose methods all raise exceptions."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        raise SystemExit


class Strange(BaseException):
    """An exception that is no Exception, and whose text is no plain string."""

    def __str__(self) -> str:
        class Text(str):
            __slots__ = ()

            def __getitem__(self, _: object) -> str:
                raise GeneratorExit

        return Text("strange")


def unreadable_agent_error() -> AgentError:
    """Return an exception of AgentChord's own tree, made by a user.

    Its class is made here, because tests count all classes of the tree. So only workers call this.
    """

    class UnreadableAgentError(AgentError):
        def __str__(self) -> str:
            raise ValueError

    return UnreadableAgentError()


def _recursion() -> NoReturn:
    _recursion()


EXCEPTIONS: Mapping[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("wrong"),
    "interrupt": KeyboardInterrupt,
    "exit": lambda: SystemExit(0),
    "cancelled": asyncio.CancelledError,
    "generator_exit": GeneratorExit,
    "stop": StopIteration,
    "stop_async": StopAsyncIteration,
    "base": BaseException,
    "memory": MemoryError,
    "timeout": TimeoutError,
    "group": lambda: ExceptionGroup("several", [ValueError(), TypeError()]),
    "base_group": lambda: BaseExceptionGroup("several", [KeyboardInterrupt(), SystemExit()]),
    "unreadable": Unreadable,
    "strange": Strange,
    "surrogates": lambda: ValueError("\ud800 and \x00"),
    "large": lambda: ValueError("x" * 10_000_000),
    "large_name": type("N" * 10_000, (Exception,), {}),
    "long_wait": lambda: LongWait(wait_s=0.0, waits_for="nothing"),
}
NEVER = threading.Event()
#: What code can do to its loop.
HARM: Mapping[str, Callable[[Any], object]] = {
    "cancel_all": lambda loop: [each.cancel() for each in asyncio.all_tasks(loop)],
    "callback": lambda loop: loop.call_soon(fail, "interrupt"),
    "foreign_callback": lambda loop: contextvars.Context().run(loop.call_soon, fail, "exit"),
    "stop_loop": lambda loop: loop.stop(),
    "stop_below": uvloop.Loop.stop,
    "close_loop": lambda loop: (loop.call_soon(loop.close), loop.close()),
    "task_factory": lambda loop: loop.set_task_factory(lambda *_, **__: fail("exit")),
    "exception_handler": lambda loop: loop.set_exception_handler(lambda *_: fail("exit")),
    "executor": lambda loop: loop.set_default_executor(ThreadPoolExecutor(max_workers=1)),
    "shut_executor": lambda loop: loop.create_task(loop.shutdown_default_executor()),
    "keep_threads": lambda loop: [loop.run_in_executor(None, NEVER.wait) for _ in range(50)],
    "close_generators": lambda loop: loop.create_task(loop.shutdown_asyncgens()),
    "debug": lambda loop: loop.set_debug(True),
}
#: These names stand for code that raises no exception of its own.
DEEDS = ("recursion", "cancel_itself", "spawn", *HARM)


def fail(what: str) -> NoReturn:
    """Raise the exception of this name."""
    if what == "recursion":
        _recursion()
    if what == "agent_error":
        raise unreadable_agent_error()
    error = EXCEPTIONS.get(what, RuntimeError)()
    raise error


async def _fail_in_task(what: str) -> None:
    fail(what)


async def _harm(what: str) -> NoReturn:
    """Harm the loop in the way of this name, and raise an exception, too."""
    loop = asyncio.get_running_loop()
    if what in HARM:
        HARM[what](loop)
        await asyncio.sleep(0.01)
    match what:
        case "cancel_itself":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)
        case "spawn":
            spawned = [loop.create_task(_fail_in_task(name)) for name in ("interrupt", "exit")]
            await asyncio.wait(spawned)
            for each in spawned:
                each.exception()
    fail(what)


def sync(what: str) -> None:
    fail(what)


async def at_once(what: str) -> None:
    await _harm(what)


async def after_awaits(what: str) -> None:
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await asyncio.sleep(0.001)
        await _harm(what)


async def in_group(what: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fail_in_task(what))
    fail(what)  # a group ignores the cancellation of its tasks


def wrapped(what: str) -> Awaitable[None]:
    """Return an awaitable, as a decorated async function does."""
    return after_awaits(what)


class Value(BaseModel):
    """A returned value that cannot be written as JSON."""

    what: str

    @model_serializer
    def written(self) -> str:
        fail(self.what)


def value(what: str) -> Value:
    return Value(what=what)


def argument(what: Annotated[str, AfterValidator(fail)]) -> None:
    """Fail while the argument is checked."""


@tool
async def hostile_tool(what: str) -> None:
    """Fail."""
    await _harm(what)


class Kind:
    """A kind of a plugin."""

    def validate(self, _config: Mapping[str, Any]) -> None:
        """Accept all settings."""

    async def run(self, context: AgentContext) -> None:
        """Fail."""
        await after_awaits(context.inputs["what"])


def kind(context: AgentContext) -> None:
    """Fail, as a kind that is a sync function."""
    fail(context.inputs["what"])


async def on_failure(_: Agent, result: AgentResult) -> None:
    """Fail with the exceptions that harm a loop most, in turn."""
    await asyncio.sleep(0)
    fail(("interrupt", "exit", "cancelled", "unreadable")[len(result.agent_id) % 4])


def block_thread() -> None:
    """Block the current thread for good; other threads go on."""
    threading.Event().wait()


def block_interpreter() -> None:
    """Keep the lock of the interpreter for good, as C code can do."""
    ctypes.PyDLL(None).sleep(3600)


async def block_loop() -> None:
    """Block the loop of user code for good."""
    block_thread()


def slow_argument(seconds: Annotated[float, AfterValidator(time.sleep)]) -> None:
    """Block while the argument is checked."""


class Change(BaseModel):
    """The change of a shared value by one agent, which no other agent may see."""

    before: list[int]


async def change(numbers: Any, context: AgentContext) -> Change:
    """Change everything that this function gets."""
    seen = Change(before=list(numbers))
    numbers.append(1)
    context.inputs["numbers"].append(2)
    return seen


def end_process(part: str) -> None:
    """Make a part of the worker die, without which the worker cannot work."""
    loop = workers.lifecycle.runtime()._loop.loop
    match part:
        case "background":
            for task in asyncio.all_tasks(loop):
                loop.call_soon_threadsafe(task.cancel)
        case "heartbeat":
            vars(workers.heartbeat)["renew_leases"] = lambda *_, **__: fail("exit")
        case "loop":
            # The name is looked up between two runs of the loop, so the loop is closed there.
            vars(app.concurrency.loop_thread)["described"] = lambda _: loop.close()
            loop.call_soon_threadsafe(fail, "interrupt")
        case "blocked loop":
            loop.call_soon_threadsafe(block_thread)
        case "threads":
            vars(app.concurrency.user_code)["threading"] = None
        case "locked interpreter":
            block_interpreter()
    block_thread()


def stop_process() -> None:
    """Ask this process to stop, and do not end before it stops."""
    os.kill(os.getpid(), signal.SIGTERM)
    block_thread()


#: Tests give these times to workers, so that a worker that cannot work ends sooner.
for name in ("PROBE_S", "LOCKED_S"):
    if seconds := os.environ.get(f"HOSTILE_{name}"):
        vars(workers.runtime)[name] = float(seconds)
if times := os.environ.get("HOSTILE_MOST_DRAINS"):
    vars(workers.endings)["MOST_DRAINS"] = int(times)

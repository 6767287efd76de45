"""Functions for function agents in tests: they sleep, fail, and report their calls."""

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

from app import ToolContext
from app.errors import AgentError
from app.kinds.base import AgentContext


def where(context: AgentContext) -> dict[str, Any]:
    """Return the name of the current thread, and the arguments of this function."""
    return {
        "thread": threading.current_thread().name,
        "attempt": context.attempt,
        "key": context.idempotency_key,
        "agent": context.agent,
    }


def fail_twice_with_a_key(context: ToolContext | None, attempt: AgentContext, mark: str) -> str:
    """Note the key of each attempt in a file, and fail in the first two attempts."""
    assert context is not None
    with Path(mark).open("a", encoding="utf-8") as file:
        file.write(f"{context.idempotency_key}\n")
    if attempt.attempt <= 2:
        raise OSError("the bank is away")
    return context.idempotency_key


def two_contexts(one: ToolContext, other: ToolContext) -> None:
    """Ask twice for the same context."""


async def where_async() -> str:
    return threading.current_thread().name


def everything(**inputs: Any) -> dict[str, Any]:
    return inputs


def fail_twice(context: AgentContext) -> int:
    """Fail in the first two attempts."""
    if context.attempt <= 2:
        raise OSError("the disk is away")
    return context.attempt


def fail_with(text: str, **_: object) -> None:
    """Fail with a text from outside."""
    raise OSError(text)


def refuse() -> None:
    raise AgentError("no attempt can help")


def leave() -> None:
    raise SystemExit(3)


async def leave_async() -> None:
    raise SystemExit(3)


def no_json() -> object:
    return object()


def large(size: int) -> str:
    return "x" * size


def block(seconds: float, mark: str) -> str:
    """Block the current thread; then write a file, which shows that the function has ended."""
    wake = threading.Event()
    wake.wait(seconds)
    _mark(mark, "went on")
    return "done"


async def wait(seconds: float, mark: str) -> str:
    """Wait on the loop; if the wait is cancelled, write a file."""
    _mark(mark, "began")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        _mark(mark, "cancelled")
        raise
    return "done"


async def stubborn(seconds: float) -> str:
    """Wait, and suppress a cancellation."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue
    return "done"


def _mark(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


def leak(key: str) -> None:
    """Write a key to a log and to an error, like careless code."""
    logging.getLogger("careless").warning("the key is %s", key)
    raise OSError(f"401 for the key {key}")


def odd_value(name: str) -> Any:
    """Return a value that is not JSON, or that is not kept exactly."""
    values = {"nan": float("nan"), "inf": [-float("inf")], "huge": 1 << 1024, "half": "\ud800"}
    return values[name]


def modules() -> list[str]:
    """Return the names of all modules that this process has imported."""
    return sorted(sys.modules)

"""The tools of a simulation's agents; each execution is noted."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

from app import tool

#: Gets the key of every tool call whose execution begins.
EXECUTED: ContextVar[Callable[[str], None]] = ContextVar("EXECUTED")


#: Names of the tools whose calls may be repeated until the end of the call is stored.
MAY_BE_REPEATED = frozenset({"look_up"})


@tool(idempotent=True)
async def look_up(key: str) -> str:
    """Look something up; may be repeated."""
    EXECUTED.get()(key)
    await asyncio.sleep(0.05)
    return "found"


@tool
async def send(key: str) -> str:
    """Send something, which must not happen twice."""
    EXECUTED.get()(key)
    await asyncio.sleep(2.0)
    return "sent"

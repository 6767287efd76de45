"""The code that follows a run until the run has ended."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.cli.cluster import arriving, connect, served_queues
from app.cli.messages import say
from app.errors import ServiceUnavailable, WaitTimeout
from app.events.texts import Piece
from app.monitoring.progress import RunProgress, read_progress

EXIT_CODES = {"completed": 0, "partially_completed": 3}
STILL_GOING = 4
POLL_S = 0.2
#: If no agent has started after this time, hints name the queues that no worker serves.
HINT_AFTER_S = 3.0


class View(Protocol):
    """A view that shows a run."""

    def show(self, run: RunProgress) -> None:
        """Show the progress of the run."""

    def add_text(self, piece: Piece) -> None:
        """Show a piece of a streamed answer."""

    def note(self, text: str) -> None:
        """Show a message of one line."""


async def follow(run_id: UUID, view: View, *, timeout_s: float | None = None) -> RunProgress:
    """Show a run until it has ended.

    Args:
        run_id: The run.
        view: The view that shows the run.
        timeout_s: Maximum number of seconds to watch; None means no limit.

    Returns:
        The ended run.

    Raises:
        UnknownRun: If there is no such run.
        WaitTimeout: If the time is over before the run has ended; the run goes on.
    """
    beside = [
        asyncio.create_task(_hint(run_id, view)),
        asyncio.create_task(_listen(run_id, view)),
    ]
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                run = await _read_patiently(run_id, view)
                view.show(run)
                if run.status.is_final:
                    return run
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise WaitTimeout(
            f"run {run_id} has not ended after {timeout_s:g} s; the run goes on"
        ) from error
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def wait_for_end(run_id: UUID, following: Coroutine[Any, Any, RunProgress]) -> RunProgress | None:
    """Follow a run in the foreground.

    Args:
        run_id: The run.
        following: A coroutine that calls ``follow``.

    Returns:
        The ended run. If the time is over before the run has ended, the function prints a message
        and returns None.
    """
    try:
        return asyncio.run(following)
    except WaitTimeout as error:
        say(str(error))
        return None
    except KeyboardInterrupt:
        say(f"the run goes on: agentchord status {run_id}, agentchord cancel {run_id}")
        raise


def exit_code(ended: RunProgress | None) -> int:
    """Return the exit code of a command that has waited for the end of a run."""
    return STILL_GOING if ended is None else EXIT_CODES.get(ended.status, 1)


def missing_worker_hints(providers: set[str]) -> list[str]:
    """Return one line for each queue that no worker serves."""
    try:
        unserved = providers - served_queues(providers)
    except (OperationalError, RedisError, OSError) as error:
        return [f"Redis cannot be reached ({error}): the run starts when Redis is back"]
    return [
        f"no worker serves queue {provider!r}: start a worker with `agentchord up`, "
        f"or `agentchord worker {provider}`"
        for provider in sorted(unserved)
    ]


async def _read_patiently(run_id: UUID, view: View) -> RunProgress:
    """Read the progress of a run; while Postgres cannot be reached, wait for Postgres."""
    connected, noted = connect(), False
    while True:
        try:
            return await connected.run_async(
                lambda client: client.transaction(partial(read_progress, run_id=run_id))
            )
        except ServiceUnavailable as error:
            if not noted:
                view.note(f"{error}; waiting for it")
                noted = True
            await asyncio.sleep(1.0)


async def _listen(run_id: UUID, view: View) -> None:
    """Show the text that streaming agents generate."""
    async for piece in arriving(lambda client: client.history.texts(run_id)):
        view.add_text(piece)


async def _hint(run_id: UUID, view: View) -> None:
    await asyncio.sleep(HINT_AFTER_S)
    run = await _read_patiently(run_id, view)
    open_ = {agent.provider for agent in run.agents if not agent.status.is_final}
    if any(agent.started_at for agent in run.agents) or not open_:
        return
    for hint in await asyncio.to_thread(missing_worker_hints, {*open_, "scheduler"}):
        view.note(hint)

"""Steps that no agent waits for; a worker finishes these steps before the worker closes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Background:
    """Runs steps in the background while agents run.

    Its weakness: a killed worker loses its unfinished steps. A fact that is necessary for a run is
    written with the records of attempts instead (``workers.settling``).

    Example:
        background.start(signals.send(agent_run_id, "money"), name="budget_waiters")
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, step: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Start a step and return at once; an error of the step is logged with the step's name."""
        task = asyncio.create_task(step, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self, *, timeout_s: float) -> None:
        """Wait at most ``timeout_s`` seconds until all steps have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background_step_failed", step=task.get_name(), error=str(error))

"""Steps that no agent waits for, and that a worker finishes before it closes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Background:
    """Runs steps beside the agents.

    Its weakness: a worker that is killed loses the steps that are under way. What a run depends on
    is written with its records instead (``workers.settling``).

    Example:
        background.start(signals.send(agent_run_id, "money"), name="budget_waiters")
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, step: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Begin a step and return at once; an error is logged under its name."""
        task = asyncio.create_task(step, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self, *, timeout_s: float) -> None:
        """Wait until all steps have ended, at most ``timeout_s`` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background_step_failed", step=task.get_name(), error=str(error))

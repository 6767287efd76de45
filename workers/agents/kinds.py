"""The execution of agents that ask no model: their inputs, deadlines and stops."""

import asyncio
import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog

from app.errors import AgentTimeout
from app.kinds.base import AgentContext, AgentKind
from app.kinds.functions import await_safely, call_safely
from app.kinds.outputs import json_output
from app.kinds.registry import KindRegistry
from app.tools.threads import run_in_thread
from workers.inflight import Phase
from workers.jobs import Job

log = structlog.get_logger(__name__)


class KindAgents:
    """Runs agents that ask no model; such agents need no permit and no hold, and cost nothing.

    Its weakness: a function that is not async runs in a thread, and a thread cannot be stopped.
    After the deadline, the agent fails while the thread goes on. The alternative is an async
    function, or an agent of the kind ``http``.

    Args:
        kinds: The kinds of this process.
        max_output_bytes: Largest output that is stored.

    Example:
        output = await kinds.run(job, {"lines": [3, 4]})
    """

    def __init__(self, kinds: KindRegistry, *, max_output_bytes: int) -> None:
        self._kinds = kinds
        self._max_output_bytes = max_output_bytes

    async def run(self, job: Job, inputs: Mapping[str, Any]) -> Any:
        """Run an attempt until the attempt ends, reaches the deadline or is stopped.

        Args:
            job: The attempt.
            inputs: JSON values by name.

        Returns:
            A JSON value.

        Raises:
            AgentError: The subclass names the cause.
        """
        agent = job.agent
        kind = self._kinds.get(agent.kind)
        context = AgentContext(
            agent=agent.name,
            module=agent.module,
            workflow=job.run.workflow.name,
            run_id=str(job.run.run_id),
            agent_run_id=str(job.claimed.id),
            attempt=job.claimed.attempt,
            tenant=job.run.tenant,
            config=agent.config,
            inputs=inputs,
            timeout_s=agent.timeout,
            max_output_bytes=self._max_output_bytes,
        )
        job.lease.enter(Phase.CALLING)
        work = asyncio.create_task(_work(kind, context), name=f"agent {agent.name}")
        try:
            # asyncio.timeout would wait for code that swallows the cancellation.
            done, _ = await asyncio.wait({work}, timeout=agent.timeout)
        finally:
            if not work.done():
                work.add_done_callback(_forget)
                work.cancel()
        if not done:
            raise AgentTimeout(
                f"agent {agent.name!r} was still at work after {agent.timeout:g} s: "
                "raise its timeout or give it less to do"
            )
        return work.result()


async def _work(kind: AgentKind, context: AgentContext) -> Any:
    call = partial(kind.run, context)
    if inspect.iscoroutinefunction(kind.run):
        output = await await_safely(call, context.agent)
    else:
        output = await run_in_thread(partial(call_safely, call, context.agent))
    return await run_in_thread(
        partial(json_output, output, agent=context.agent, max_bytes=context.max_output_bytes)
    )


def _forget(work: "asyncio.Task[Any]") -> None:
    """Drop the result of an agent that was stopped; log the agent's error."""
    if not work.cancelled() and (error := work.exception()) is not None:
        log.debug("abandoned_agent_failed", error=str(error))

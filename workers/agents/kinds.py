"""The execution of agents that ask no model: their inputs, deadlines and stops."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from app.concurrency.user_code import TookTooLong, UserCodeFailed, result_of, within
from app.domain.json_values import is_plain
from app.errors import AgentError, AgentTimeout
from app.kinds.base import AgentContext
from app.kinds.functions import raise_as_agent_error
from app.kinds.outputs import json_output
from app.kinds.registry import KindRegistry
from workers.agents.tool_contexts import function_context
from workers.inflight import Phase
from workers.jobs import Job


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
            tool_context=function_context(job),
        )
        job.lease.enter(Phase.CALLING)
        try:
            return await within(self._output(agent.kind, context), timeout_s=agent.timeout)
        except TookTooLong:
            raise AgentTimeout(
                f"agent {agent.name!r} was still at work after {agent.timeout:g} s: "
                "raise its timeout or give it less to do"
            ) from None
        except UserCodeFailed as error:
            raise_as_agent_error(agent.name, error)

    async def _output(self, kind: str, context: AgentContext) -> Any:
        try:
            output = await self._kinds.run(kind, context)
        except (AgentError, UserCodeFailed):
            raise
        except Exception as error:  # a defect of a built-in kind is counted as a user's is
            raise UserCodeFailed(error) from error
        write = partial(json_output, agent=context.agent, max_bytes=context.max_output_bytes)
        if is_plain(output):
            return write(output)
        # The output may be an object of a user's class, which pydantic writes as JSON. Its thread
        # also sees its end, because this coroutine keeps no reference to it.
        given = [output]
        del output
        return await result_of(lambda: write(given.pop()))

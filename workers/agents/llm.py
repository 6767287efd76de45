"""An llm agent: a conversation with a model, in which it may ask for tools."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from app.errors import AgentTimeout, ToolError
from app.llm.base import LLMResponse, ToolCall
from app.storage.group_commit import GroupCommit
from app.storage.records import Record
from app.tools.registry import ToolRegistry
from app.tools.tool import Tool, ToolOutput
from workers.agents.structured import Unfit, read_answer
from workers.inflight import Phase
from workers.jobs import Job


class Calls(Protocol):
    """Makes one call for a job: ``Caller``, or what stands before it."""

    async def call(
        self,
        job: Job,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
    ) -> LLMResponse:
        """See ``Caller.call``."""
        ...


class LLMAgent:
    """Runs llm agents.

    Args:
        caller: Makes the calls.
        tools: The tools of this process.
        records: Group commit of records: each turn is settled before the next one starts.
        max_output_bytes: Largest answer that is read as JSON.
    """

    def __init__(
        self,
        *,
        caller: Calls,
        tools: ToolRegistry,
        records: GroupCommit[Record, bool],
        max_output_bytes: int,
    ) -> None:
        self._caller = caller
        self._tools = tools
        self._records = records
        self._max_output_bytes = max_output_bytes

    async def run(self, job: Job, prompt: str) -> Any:
        """Converse until the model answers without asking for a tool.

        Args:
            job: Who converses.
            prompt: The rendered prompt.

        Returns:
            The text of the last answer; a JSON value if the agent has an ``output_schema``.

        Raises:
            AgentError: When a call fails, a tool is unknown, ``max_turns`` are over, or the answer
                does not fit the schema, not even once the model was told why.
        """
        tools = {tool.name: tool for tool in map(self._tools.resolve, job.agent.tools)}
        specs = [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in tools.values()
        ]
        messages: list[Mapping[str, Any]] = []
        if system := job.agent.llm_config.get("system"):
            messages.append({"role": "system", "content": system})
        messages.append({"role": "user", "content": prompt})
        for _ in range(job.agent.max_turns):
            response = await self._caller.call(job, messages, specs)
            if not response.tool_calls:
                if job.agent.output_schema is None:
                    return response.content
                return await self._structured(job, messages, specs, response)
            await self._settle_turn(job)
            messages += await self._answer(job, response, tools)
        raise ToolError(
            f"agent {job.agent.name!r} still asks for tools after {job.agent.max_turns} turns: "
            "raise its max_turns or simplify its prompt"
        )

    async def _structured(
        self,
        job: Job,
        messages: list[Mapping[str, Any]],
        specs: Sequence[Mapping[str, Any]],
        response: LLMResponse,
    ) -> Any:
        """The answer as a JSON value that fits the schema, after one repair if it does not."""
        answer = await read_answer(job.agent, response, max_bytes=self._max_output_bytes)
        if isinstance(answer, Unfit) and answer.repairable:
            await self._settle_turn(job)
            messages += answer.to_repair(response)
            response = await self._caller.call(job, messages, specs)
            answer = await read_answer(job.agent, response, max_bytes=self._max_output_bytes)
        if isinstance(answer, Unfit):
            raise answer.error(job.agent)
        return answer.value

    async def _settle_turn(self, job: Job) -> None:
        calls, job.calls = tuple(job.calls), []
        record = Record(agent_run_id=job.claimed.id, attempt=job.claimed.attempt, calls=calls)
        try:
            await self._records.submit(record)
        except BaseException:
            # Whether it was written is not known here; a call that comes twice is booked once.
            job.calls = [*calls, *job.calls]
            raise

    async def _answer(
        self, job: Job, response: LLMResponse, tools: Mapping[str, Tool]
    ) -> Sequence[Mapping[str, Any]]:
        """Run the tools the model asks for, all at once; what they say goes back to the model."""
        wanted = response.tool_calls or ()
        job.lease.phase = Phase.CALLING
        try:
            async with asyncio.timeout(job.calling_left_s):
                results = await asyncio.gather(*(_use(tools, call) for call in wanted))
        except TimeoutError as error:
            raise AgentTimeout(
                f"agent {job.agent.name!r} ran out of its {job.agent.timeout:g} s in a tool"
            ) from error
        answers = [
            {"role": "tool", "tool_call_id": call.id, "content": text, "is_error": is_error}
            for call, (text, is_error) in zip(wanted, results, strict=True)
        ]
        return [response.as_message(), *answers]


async def _use(tools: Mapping[str, Tool], call: ToolCall) -> ToolOutput:
    tool = tools.get(call.name)
    if tool is None:
        known = ", ".join(tools) or "none"
        return ToolOutput(f"there is no tool {call.name!r}; there are: {known}", is_error=True)
    return await tool.call(call.arguments)

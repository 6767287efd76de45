"""The tool calls of one turn.

The start of each tool call is stored before the tool runs. The end of the tool call is stored as
soon as the tool ends. So a tool call that has ended is never executed again, whatever happens to
this worker. If it is unknown whether a tool call has run, the tool call is repeated only if the
tool is idempotent.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import AgentTimeout, ToolError
from app.sandbox.turns import current_turn
from app.storage.group_commit import persist
from app.storage.turns import ToolCallRecord, ToolState, why_not
from app.tools.tool import Tool, ToolOutput
from workers.agents.conversation import Conversation, OpenTurn
from workers.agents.tool_contexts import tool_context
from workers.inflight import LeaseGone, Phase, StopReason
from workers.jobs import Job
from workers.texts import storable

Running = dict[asyncio.Task[ToolOutput], int]
#: Runs one tool call.
Use = Callable[[], Coroutine[Any, Any, ToolOutput]]


class ToolTurns:
    """Runs the tools that models ask for.

    Its weakness: if a worker is killed, the outcomes of the worker's running tool calls are
    unknown. The model is told that these outcomes are unknown. If a second execution of a tool does
    no harm, the alternative is ``@tool(idempotent=True)``.

    Args:
        engine: The process's engine.
        max_output_bytes: Largest result of a tool that sets no limit of its own.

    Example:
        await tool_turns.answer(job, conversation, {"search": search})
    """

    def __init__(self, *, engine: AsyncEngine, max_output_bytes: int) -> None:
        self._engine = engine
        self._max_output_bytes = max_output_bytes

    async def answer(self, job: Job, conversation: Conversation, tools: Mapping[str, Tool]) -> None:
        """Answer every tool call of the open turn, and close the turn.

        Args:
            job: The attempt. The attempt's unwritten calls are written together with the turn.
            conversation: A conversation with an open turn.
            tools: The agent's tools by name.

        Raises:
            ToolError: If a tool says that no other arguments would help.
            AgentTimeout: If the agent's time is over.
            LeaseGone: If the attempt must stop.
        """
        turn = conversation.open_turn
        assert turn is not None, "there is a turn to answer"
        to_repeat = {place for place in turn.interrupted if _may_repeat(turn, place, tools)}
        conversation.tell_unknown(turn.interrupted - to_repeat)
        places = [place for place in range(len(turn.tool_calls)) if place not in turn.answers]
        if places or turn.record:
            await self._store(job, turn, places)
        if places:
            turns = [*conversation.closed, turn]
            calls = {place: partial(self._use, job, tools, turns, place) for place in places}
            await self._run(job, turn, calls)
        conversation.close()

    async def _store(self, job: Job, turn: OpenTurn, places: Sequence[int]) -> None:
        """Store the start of the tools; also store a new turn, with the turn's known answers."""
        starts = [turn.tool_call(place, ToolState.RUNNING) for place in places]
        answered = turn.answers.items() if turn.record else ()
        refused = [turn.tool_call(place, ToolState.FAILED, said.text) for place, said in answered]
        try:
            may_run = await job.settling.write([*starts, *refused], turn.record)
        except asyncio.CancelledError:
            # The starts may be stored already, although the tools will not run. So note the ends
            # as unknown.
            job.settling.note_tools([turn.tool_call(place, ToolState.UNKNOWN) for place in places])
            raise
        if not may_run:
            raise await self._stopped(job)

    async def _run(self, job: Job, turn: OpenTurn, calls: Mapping[int, Use]) -> None:
        """Run tools concurrently, and write each end; note the end of a stopped tool as unknown."""
        job.lease.enter(Phase.CALLING)
        loop = asyncio.get_running_loop()
        started_at_s = loop.time()
        running = {loop.create_task(use()): place for place, use in calls.items()}
        # If this coroutine is stopped, the unwritten ends go into the attempt's last record.
        unwritten = {place: turn.tool_call(place, ToolState.UNKNOWN) for place in running.values()}
        try:
            with job.clock.running():
                async with asyncio.timeout(job.clock.left_s) as deadline:
                    while running:
                        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                        seconds = loop.time() - started_at_s
                        ended, failure = _take_ended(running, turn, seconds)
                        unwritten |= ended
                        if failure is not None:
                            raise failure
                        await job.settling.write(list(ended.values()))
                        for place in ended:
                            del unwritten[place]
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise AgentTimeout(
                f"agent {job.agent.name!r} ran out of its {job.agent.timeout:g} s in a tool"
            ) from error
        finally:
            for task in running:
                task.cancel()
            job.settling.note_tools(list(unwritten.values()))

    async def _use(
        self, job: Job, tools: Mapping[str, Tool], turns: Sequence[OpenTurn], place: int
    ) -> ToolOutput:
        tool_call = turns[-1].tool_calls[place]
        tool = tools.get(tool_call.name)
        if tool is None:
            known = ", ".join(tools) or "none"
            return ToolOutput(
                f"there is no tool {tool_call.name!r}; there are: {known}", is_error=True
            )
        current_turn.set(job.run.turn)
        output = await tool.call(
            tool_call.arguments,
            max_output_bytes=self._max_output_bytes,
            context=tool_context(job, turns, place) if tool.context_parameter else None,
        )
        return output._replace(text=storable(output.text))

    async def _stopped(self, job: Job) -> LeaseGone:
        """Return the exception that says why the tools must not start."""
        id_, attempt = job.claimed.id, job.claimed.attempt
        fence = await persist(
            self._engine, lambda connection: why_not(connection, id_, attempt), name="why_not"
        )
        if fence.lost:
            return LeaseGone(StopReason.LEASE_LOST)
        # Even if the run was resumed meanwhile, the agent is handed back. Then a new attempt goes
        # on.
        return LeaseGone(StopReason.RUN_STOPPED if fence.stopping else StopReason.RUN_PAUSED)


def _may_repeat(turn: OpenTurn, place: int, tools: Mapping[str, Tool]) -> bool:
    tool = tools.get(turn.tool_calls[place].name)
    return tool is not None and tool.idempotent


def _take_ended(
    running: Running, turn: OpenTurn, seconds: float
) -> tuple[dict[int, ToolCallRecord], ToolError | None]:
    """Remove the ended tools from ``running``; return the tools' records, and an error, if any."""
    ended: dict[int, ToolCallRecord] = {}
    failure: ToolError | None = None
    for task in [task for task in running if task.done()]:
        place = running.pop(task)
        try:
            output = task.result()
        except ToolError as error:
            failure = error
            output = ToolOutput(storable(str(error)), is_error=True)
        turn.answers[place] = output
        state = ToolState.FAILED if output.is_error else ToolState.COMPLETED
        ended[place] = turn.tool_call(place, state, output.text, seconds)
    return ended, failure

"""An llm agent: a conversation with a model, which may ask for tools."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from app.domain.agent import Agent
from app.domain.attachments import Source
from app.domain.on_cut import OnCut
from app.domain.server_tools import is_server_tool
from app.errors import ToolError
from app.llm.base import LLMResponse, Message
from app.llm.parts import Part, is_media
from app.registration.output_schemas import OutputSchemas
from app.storage.group_commit import GroupCommit
from app.storage.turns import StoredTurn
from app.tools.registry import ToolRegistry
from workers.agents.answer_ends import (
    CUT,
    PAUSED,
    check_end,
    check_refused,
    end_of,
    still_cut,
    to_go_on,
)
from workers.agents.attachments import Attachments
from workers.agents.conversation import Conversation
from workers.agents.structured import Fit, Unfit, read_answer
from workers.agents.tool_turns import ToolTurns
from workers.calls.base import CallOutcome, CallRequest, CallRing
from workers.jobs import Job

#: This group commit gets the id of an agent run, and returns the stored turns of this agent run.
StoredTurns = GroupCommit[UUID, tuple[StoredTurn, ...]]


class LLMAgent:
    """Runs llm agents.

    Its weakness: every turn sends the whole conversation again, so the cost of an agent grows with
    the square of the number of turns. ``max_turns`` and ``cost_limit`` bound this cost.
    ``prompt_cache`` lowers this cost.

    Args:
        calls: Makes the calls.
        registry: The tools of this process.
        tool_turns: Runs the tools of a turn.
        stored: Reads the turns that earlier attempts have stored.
        attachments: Reads the attachments.
        schemas: Applies the schemas of outputs.
        max_output_bytes: Largest answer that is read as JSON.

    Example:
        answer = await llm.run(job, "Summarise the findings: ...")
    """

    def __init__(
        self,
        *,
        calls: CallRing,
        registry: ToolRegistry,
        tool_turns: ToolTurns,
        stored: StoredTurns,
        attachments: Attachments,
        schemas: OutputSchemas,
        max_output_bytes: int,
    ) -> None:
        self._calls = calls
        self._registry = registry
        self._tool_turns = tool_turns
        self._stored = stored
        self._attachments = attachments
        self._schemas = schemas
        self._max_output_bytes = max_output_bytes

    async def run(self, job: Job, prompt: str, sources: Sequence[Source] = ()) -> Any:
        """Converse with the model until the model answers without asking for a tool.

        If the provider pauses the provider's own tools, the model gets the paused answer back and
        goes on.

        The second attempt and every later attempt go on with the conversation that the earlier
        attempts have stored. The stored turns are not paid for again, and finished tool calls are
        not executed again.

        Args:
            job: The attempt.
            prompt: The rendered prompt.
            sources: The sources of the agent's attachments.

        Returns:
            The text of the last answer. If the agent has an ``output_schema``, the result is a JSON
            value instead.

        Raises:
            AgentError: If an attachment cannot be sent, a call fails, a tool is unknown, or
                ``max_turns`` is reached. This error is also raised if the answer was refused, or if
                the answer still does not fit the schema after one repair. A cut or empty answer
                also raises this error, unless the agent accepts this answer.
            LeaseGone: If the attempt must stop.
        """
        at_provider = [tool for tool in job.agent.tools if is_server_tool(tool)]
        own = [tool for tool in job.agent.tools if not is_server_tool(tool)]
        tools = {tool.name: tool for tool in map(self._registry.resolve, own)}
        specs = [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in tools.values()
        ] + at_provider
        conversation = await self._open(job, await self._content(job, prompt, sources))
        while True:
            if conversation.open_turn:
                await self._tool_turns.answer(job, conversation, tools)
                job.clock.stored()
            outcome = await self._call(job, conversation, conversation.messages, specs)
            response = outcome.response
            check_refused(job.agent, response)
            if not response.tool_calls and response.finish_reason != PAUSED:
                return await self._output(job, conversation, specs, response)
            if conversation.turns + 1 >= job.agent.max_turns:
                raise _too_many_turns(job.agent, response)
            conversation.ask(response, outcome.call_id)

    async def _output(
        self,
        job: Job,
        conversation: Conversation,
        specs: Sequence[Mapping[str, Any]],
        response: LLMResponse,
    ) -> Any:
        """Return the output that follows from an answer without tool calls."""
        agent = job.agent
        if agent.on_cut == OnCut.CONTINUE:
            response = await self._whole(job, conversation, specs, response)
        if agent.output_schema is None:
            check_end(agent, response, is_read=job.is_read)
            return response.content
        return await self._structured(job, conversation, specs, response)

    async def _whole(
        self,
        job: Job,
        conversation: Conversation,
        specs: Sequence[Mapping[str, Any]],
        response: LLMResponse,
    ) -> LLMResponse:
        """While the answer is cut, ask the model to go on; return one answer with all parts.

        The parts of the answer are not stored, so the next attempt asks for the whole answer again.
        """
        agent, text = job.agent, response.content
        messages, turns = list(conversation.messages), conversation.turns + 1
        while response.finish_reason == CUT:
            if turns >= agent.max_turns or not response.content.strip():
                raise still_cut(agent, response)
            # Settle the hold of the cut answer before the next call.
            await job.settling.write()
            messages += to_go_on(response)
            response = (await self._call(job, conversation, messages, specs)).response
            check_refused(agent, response)
            if response.tool_calls:
                raise ToolError(
                    f"agent {agent.name!r}: the model asks for a tool instead of going on with its "
                    "cut answer: raise its max_tokens"
                )
            text, turns = text + response.content, turns + 1
        return replace(response, content=text)

    async def _structured(
        self,
        job: Job,
        conversation: Conversation,
        specs: Sequence[Mapping[str, Any]],
        response: LLMResponse,
    ) -> Any:
        """Return the answer as a JSON value that fits the schema, after at most one repair."""
        check_end(job.agent, response, is_read=job.is_read)
        answer = await self._read(job, response)
        if isinstance(answer, Unfit) and answer.repairable:
            # Settle the hold of the first answer before the next call.
            await job.settling.write()
            messages = [*conversation.messages, *answer.to_repair(response)]
            response = (await self._call(job, conversation, messages, specs)).response
            check_end(job.agent, response, is_read=job.is_read)
            answer = await self._read(job, response)
        if isinstance(answer, Unfit):
            raise answer.error(job.agent)
        return answer.value

    async def _read(self, job: Job, response: LLMResponse) -> Fit | Unfit:
        return await read_answer(
            job.agent,
            response,
            schemas=self._schemas,
            turn=job.run.turn,
            max_bytes=self._max_output_bytes,
        )

    async def _call(
        self,
        job: Job,
        conversation: Conversation,
        messages: Sequence[Message],
        specs: Sequence[Mapping[str, Any]],
    ) -> CallOutcome:
        job.finish_reason = None
        outcome = await self._calls.call(
            CallRequest(
                job=job,
                agent=job.agent,
                messages=messages,
                tools=specs,
                option=conversation.option,
            )
        )
        conversation.option = outcome.option
        job.finish_reason = end_of(outcome.response)
        return outcome

    async def _content(self, job: Job, prompt: str, sources: Sequence[Source]) -> str | list[Part]:
        """Return the content of the first message.

        The files come first, because models read files best before the question.
        """
        parts = await self._attachments.read(job, sources)
        if any(map(is_media, parts)):
            return [*parts, {"type": "text", "text": prompt}]
        # Not every server with OpenAI's protocol accepts a list of texts.
        return "\n\n".join([*(part["text"] for part in parts), prompt])

    async def _open(self, job: Job, content: str | list[Part]) -> Conversation:
        opening: list[Message] = [{"role": "user", "content": content}]
        if system := job.agent.llm_config.get("system"):
            opening.insert(0, {"role": "system", "content": system})
        if not job.agent.tools or job.claimed.attempt == 1:
            return Conversation(opening)
        return Conversation(opening, await self._stored.submit(job.claimed.id))


def _too_many_turns(agent: Agent, response: LLMResponse) -> ToolError:
    """Return the failure of an agent whose last turn brought no answer."""
    if response.finish_reason == PAUSED:
        return ToolError(
            f"agent {agent.name!r}: the provider still uses its tools after {agent.max_turns} "
            "turns: raise its max_turns, or lower max_uses of the tools"
        )
    cut = response.finish_reason == CUT
    return ToolError(
        f"agent {agent.name!r} still asks for tools after {agent.max_turns} "
        f"turns{', in an answer that ends at max_tokens' if cut else ''}: raise its "
        f"{'max_tokens' if cut else 'max_turns'} or simplify its prompt"
    )

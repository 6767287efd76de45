"""The turns of a conversation are booked one by one, and none is lost or forgotten."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import LLMResponse
from app.domain.attachments import Source
from app.llm.base import ToolCall
from app.llm.parts import Part
from app.registration.output_schemas import OutputSchemas
from app.sandbox.processes import Sandbox
from app.sandbox.turns import current_turn
from app.storage.records import Record
from app.storage.turns import ToolState
from app.tools.registry import ToolRegistry
from app.tools.tool import tool
from tests.support.calls import call_of
from tests.support.jobs import CLAIMED, ID, Written, agent_of, job_of
from tests.support.pace import scaled
from workers.agents.attachments import Attachments
from workers.agents.conversation import Conversation, decode_message, encode_message
from workers.agents.llm import LLMAgent, StoredTurns
from workers.agents.tool_turns import ToolTurns
from workers.calls.base import CallOutcome, CallRequest, CallRing
from workers.inflight import InFlight
from workers.jobs import Job

pytestmark = pytest.mark.anyio

AGENT = agent_of("gpt-4o")


class AlwaysAsksForATool:
    """Calls that cost a dollar each."""

    async def call(self, request: CallRequest) -> CallOutcome:
        call_id = UUID(int=len(request.messages))
        request.job.settling.note(
            call_of("gpt-4o", call_id=call_id, budget_ids=(ID,), cost_usd=Decimal(1))
        )
        asked = ToolCall(id="call_1", name="unknown", arguments="{}")
        response = LLMResponse(
            content="", model="gpt-4o", input_tokens=1, output_tokens=1, tool_calls=[asked]
        )
        return CallOutcome(response=response, call_id=call_id)


class NeverCommits:
    """Records that take in what they are given, and never say that it is written."""

    def __init__(self) -> None:
        self.given: list[Record] = []
        self.asked = asyncio.Event()

    async def submit(self, item: Record) -> bool:
        self.given.append(item)
        self.asked.set()
        await asyncio.Event().wait()
        return True


class Asks:
    """Calls that ask for tools once, and then answer; keeps the conversation."""

    def __init__(self, *tool_calls: ToolCall) -> None:
        self._tool_calls = tool_calls
        self.heard: Sequence[Mapping[str, Any]] = ()

    async def call(self, request: CallRequest) -> CallOutcome:
        self.heard = list(request.messages)
        asks = len(self.heard) == 1
        response = LLMResponse(
            content="" if asks else "done",
            model="gpt-4o",
            input_tokens=1,
            output_tokens=1,
            tool_calls=self._tool_calls if asks else None,
        )
        return CallOutcome(response=response, call_id=ID)


class NoAttachments:
    """The attachments of agents that have none."""

    async def read(self, job: Job, sources: Sequence[Source]) -> list[Part]:
        assert not sources
        return []


@tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@tool
async def tell_turn() -> str:
    """Tell the run for which a tool uses the sandbox."""
    return str(current_turn.get())


def llm_agent(calls: CallRing) -> LLMAgent:
    nowhere = cast("AsyncEngine", None)
    return LLMAgent(
        calls=calls,
        registry=ToolRegistry([], {"double": double, "tell_turn": tell_turn}),
        tool_turns=ToolTurns(engine=nowhere, max_output_bytes=1000),
        stored=cast("StoredTurns", None),
        attachments=cast("Attachments", NoAttachments()),
        schemas=OutputSchemas(Sandbox()),
        max_output_bytes=1_000_000,
    )


async def test_a_turn_that_is_stopped_while_it_is_booked_still_belongs_to_its_job() -> None:
    records = NeverCommits()
    agent = llm_agent(AlwaysAsksForATool())
    with InFlight().lease(CLAIMED) as lease:
        job = job_of(AGENT, lease=lease, records=records)
        turn = asyncio.create_task(agent.run(job, "go"))
        await asyncio.wait_for(records.asked.wait(), scaled(5))

        turn.cancel()

        with pytest.raises(asyncio.CancelledError):
            await turn
    assert job.settling.calls == records.given[0].calls != ()
    started = records.given[0].tools
    assert [(call.tool, call.state) for call in started] == [("unknown", ToolState.RUNNING)]
    assert job.settling.tools == (replace(started[0], state=ToolState.UNKNOWN),)


async def test_wishes_that_make_no_sense_are_answered_and_fail_no_agent() -> None:
    calls = Asks(
        ToolCall(id="1", name="triple", arguments="{}"),
        ToolCall(id="2", name="double", arguments="not json \x00"),
        ToolCall(id="3", name="double", arguments='{"number": "many"}'),
        ToolCall(id="4", name="double", arguments="[" * 100_000),
        ToolCall(id="5", name="double", arguments='{"number": 21}'),
    )
    agent = replace(AGENT, tools=["double"])
    records = Written()
    with InFlight().lease(CLAIMED) as lease:
        job = job_of(agent, lease=lease, records=records)

        output = await llm_agent(calls).run(job, "go")

    answers = [(m["tool_call_id"], m["content"], m["is_error"]) for m in calls.heard[2:]]
    assert output == "done"
    assert answers[0] == ("1", "there is no tool 'triple'; there are: double", True)
    assert all("was not run" in text and failed for _, text, failed in answers[1:4])
    assert answers[4] == ("5", "42", False)
    start, *ends = records.given
    assert [call.state for call in start.tools] == [ToolState.RUNNING] * 5
    assert start.turn is not None
    states = {call.position: call.state for end in ends for call in end.tools}
    assert states == dict.fromkeys(range(4), ToolState.FAILED) | {4: ToolState.COMPLETED}
    assert "\x00" not in start.tools[1].arguments
    assert (job.settling.calls, job.settling.tools) == ((), ())


async def test_a_tool_uses_the_sandbox_in_the_turn_of_its_run() -> None:
    calls = Asks(ToolCall(id="1", name="tell_turn", arguments="{}"))
    with InFlight().lease(CLAIMED) as lease:
        job = job_of(replace(AGENT, tools=["tell_turn"]), lease=lease, records=Written())

        await llm_agent(calls).run(job, "go")

    assert calls.heard[2]["content"] == str(job.run.turn)
    assert current_turn.get() is None


@pytest.mark.parametrize("arguments", ["[" * 100_000, "9" * 10_000, '{"a": "half', "[NaN]", ""])
def test_arguments_of_a_cut_answer_that_are_no_object_are_left_out(arguments: str) -> None:
    asked = ToolCall(id="call_1", name="pay", arguments=arguments)
    cut = LLMResponse(
        content="",
        model="m",
        input_tokens=1,
        output_tokens=1,
        finish_reason="length",
        tool_calls=[asked],
    )
    conversation = Conversation([])

    conversation.ask(cut, ID)

    (message,) = conversation.messages
    assert [call.arguments for call in message["tool_calls"]] == ["{}"]


def test_a_message_that_is_stored_comes_back_as_it_was() -> None:
    tool_call = ToolCall(id="call_1", name="look_up", arguments='{"key": "\\u0000 \ud800 \x00"}')
    message = {
        "role": "assistant",
        "content": "Let me look. \x00 \ud800 é",
        "tool_calls": [tool_call],
        "blocks": [{"type": "thinking", "thinking": "a\x00", "signature": "x/1+="}],
    }

    stored = encode_message(message)

    assert stored.isascii()
    assert "\x00" not in stored
    assert decode_message(stored) == message

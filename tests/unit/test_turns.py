"""The turns of a conversation are booked one by one, and none is lost or forgotten."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import Agent, LLMResponse, Workflow
from app.llm.base import ToolCall
from app.storage.claims import ClaimedAgent
from app.storage.group_commit import GroupCommit
from app.storage.records import CallRecord, Record
from app.storage.turns import ToolState
from app.tools.registry import ToolRegistry
from workers.agents.conversation import decode_message, encode_message
from workers.agents.llm import LLMAgent, StoredTurns
from workers.agents.tool_turns import ToolTurns
from workers.calls import Caller
from workers.inflight import InFlight
from workers.jobs import Job, RunContext

pytestmark = pytest.mark.anyio

ID = UUID(int=7)
AGENT = Agent(name="a", prompt_template="go", llm_config={"model": "gpt-4o"})
CLAIMED = ClaimedAgent(
    id=ID,
    run_id=ID,
    name="a",
    attempt=1,
    retries=0,
    limit_usd=Decimal(9),
    spent_usd=Decimal(0),
    outputs={},
)
RUN = RunContext(
    run_id=ID,
    workflow_id=ID,
    workflow=Workflow(name="turns", agents=[AGENT]),
    version=1,
    tenant=None,
    input={},
    weight=1.0,
)


class AlwaysAsksForATool:
    """Calls that cost a dollar each."""

    async def call(
        self, job: Job, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> LLMResponse:
        job.calls.append(
            CallRecord(
                call_id=UUID(int=len(messages)),
                run_id=ID,
                agent_run_id=ID,
                attempt=1,
                workflow_id=ID,
                workflow="turns",
                agent="a",
                module="General",
                provider="openai",
                model="gpt-4o",
                budget_ids=(ID,),
                cost_usd=Decimal(1),
            )
        )
        wish = ToolCall(id="call_1", name="unknown", arguments="{}")
        return LLMResponse(
            content="", model="gpt-4o", input_tokens=1, output_tokens=1, tool_calls=[wish]
        )


class NeverCommits:
    """Records that take in what they are given, and never say that it is written."""

    def __init__(self) -> None:
        self.given: list[Record] = []
        self.asked = asyncio.Event()

    async def submit(self, record: Record) -> bool:
        self.given.append(record)
        self.asked.set()
        await asyncio.Event().wait()
        return True


def llm_agent(records: NeverCommits) -> LLMAgent:
    given = cast("GroupCommit[Record, bool]", records)
    nowhere = cast("AsyncEngine", None)
    return LLMAgent(
        caller=cast("Caller", AlwaysAsksForATool()),
        registry=ToolRegistry([]),
        tool_turns=ToolTurns(records=given, engine=nowhere, max_output_bytes=1000),
        stored=cast("StoredTurns", None),
    )


async def test_a_turn_that_is_stopped_while_it_is_booked_still_belongs_to_its_job() -> None:
    records = NeverCommits()
    agent = llm_agent(records)
    with InFlight().lease(CLAIMED) as lease:
        job = Job(run=RUN, agent=AGENT, claimed=CLAIMED, lease=lease, calling_left_s=10)
        turn = asyncio.create_task(agent.run(job, "go"))
        await asyncio.wait_for(records.asked.wait(), 5)

        turn.cancel()

        with pytest.raises(asyncio.CancelledError):
            await turn
    assert job.calls == list(records.given[0].calls) != []
    started = records.given[0].tools
    assert [(call.tool, call.state) for call in started] == [("unknown", ToolState.RUNNING)]
    assert job.tools == [replace(started[0], state=ToolState.UNKNOWN)]


def test_a_message_that_is_stored_comes_back_as_it_was() -> None:
    wish = ToolCall(id="call_1", name="look_up", arguments='{"key": "\\u0000 \ud800 \x00"}')
    message = {
        "role": "assistant",
        "content": "Let me look. \x00 \ud800 é",
        "tool_calls": [wish],
        "blocks": [{"type": "thinking", "thinking": "a\x00", "signature": "x/1+="}],
    }

    stored = encode_message(message)

    assert stored.isascii()
    assert "\x00" not in stored
    assert decode_message(stored) == message

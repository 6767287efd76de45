"""The turns of a conversation are booked one by one, and none is lost or forgotten."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest

from app import Agent, LLMResponse, Workflow
from app.llm.base import ToolCall
from app.storage.claims import ClaimedAgent
from app.storage.group_commit import GroupCommit
from app.storage.records import CallRecord, Record
from app.tools.registry import ToolRegistry
from workers.agents.llm import LLMAgent
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


async def test_a_turn_that_is_stopped_while_it_is_booked_still_belongs_to_its_job() -> None:
    records = NeverCommits()
    agent = LLMAgent(
        caller=cast("Caller", AlwaysAsksForATool()),
        tools=ToolRegistry([]),
        records=cast("GroupCommit[Record, bool]", records),
        max_output_bytes=1_000_000,
    )
    with InFlight().lease(CLAIMED) as lease:
        job = Job(run=RUN, agent=AGENT, claimed=CLAIMED, lease=lease, calling_left_s=10)
        turn = asyncio.create_task(agent.run(job, "go"))
        await asyncio.wait_for(records.asked.wait(), 5)

        turn.cancel()

        with pytest.raises(asyncio.CancelledError):
            await turn
    assert job.calls == list(records.given[0].calls) != []

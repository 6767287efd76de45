"""A job and a call for meters to count, made up."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.storage.claims import ClaimedAgent
from app.storage.records import CallRecord
from workers.inflight import Lease
from workers.jobs import Job, RunContext

ID = UUID(int=7)


def job_of(model: str) -> Job:
    """An attempt of an agent with this model, in the task that runs now."""
    agent = Agent(name="a", prompt_template="go", llm_config={"model": model})
    run = RunContext(
        run_id=ID,
        workflow_id=ID,
        workflow=Workflow(name="w", agents=[agent]),
        version=1,
        tenant=None,
        input={},
        weight=1.0,
    )
    claimed = ClaimedAgent(
        id=ID,
        run_id=ID,
        name="a",
        attempt=1,
        retries=0,
        limit_usd=Decimal(9),
        spent_usd=Decimal(0),
        outputs={},
    )
    task = asyncio.current_task()
    assert task is not None
    lease = Lease(id=ID, attempt=1, task=task)
    return Job(run=run, agent=agent, claimed=claimed, lease=lease, calling_left_s=30.0)


def call_of(model: str, **fields: Any) -> CallRecord:
    """A call of a cent that took a second."""
    made = CallRecord(
        call_id=ID,
        run_id=ID,
        agent_run_id=ID,
        attempt=1,
        workflow_id=ID,
        workflow="w",
        agent="a",
        module="General",
        provider="openai",
        model=model,
        budget_ids=(),
        cost_usd=Decimal("0.01"),
        seconds=1.0,
    )
    return replace(made, **fields)

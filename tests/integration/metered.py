"""A job for meters to count, made up."""

import asyncio
from decimal import Decimal
from uuid import UUID

from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.storage.claims import ClaimedAgent
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

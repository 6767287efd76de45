"""A made-up attempt of an agent in its worker's form, for tests that run no worker."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.storage.claims import ClaimedAgent
from app.storage.records import Record
from workers.call_clock import CallClock
from workers.inflight import Lease
from workers.jobs import Job
from workers.run_contexts import RunContext
from workers.settling import Records, Settling

ID = UUID(int=7)
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


def agent_of(model: str) -> Agent:
    """An agent whose prompt to this model is "go"."""
    return Agent(name="a", prompt_template="go", llm_config={"model": model})


class Written:
    """Records that are written at once, into a list."""

    def __init__(self) -> None:
        self.given: list[Record] = []

    async def submit(self, item: Record) -> bool:
        """See ``Records``."""
        self.given.append(item)
        return True


def job_of(
    agent: Agent, *, attempt: int = 1, lease: Lease | None = None, records: Records | None = None
) -> Job:
    """An attempt of an agent, in a run of its own.

    Args:
        agent: The only one of its workflow.
        attempt: Its number.
        lease: Whose it is; without one it belongs to the task that runs now.
        records: Where its calls are written; without any they go into a list of their own.
    """
    run = RunContext(
        run_id=ID,
        workflow_id=ID,
        workflow=Workflow(name="w", agents=[agent]),
        version=1,
        tenant=None,
        input={},
        weight=1.0,
    )
    if lease is None:
        task = asyncio.current_task()
        assert task is not None
        lease = Lease(id=ID, attempt=attempt, task=task)
    claimed = replace(CLAIMED, attempt=attempt)
    return Job(
        run=run,
        agent=agent,
        claimed=claimed,
        lease=lease,
        settling=Settling(records or Written(), agent_run_id=ID, attempt=attempt),
        clock=CallClock(30.0),
    )

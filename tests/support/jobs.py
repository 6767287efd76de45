"""A made-up attempt, in the form in which a worker has it, for tests that run no worker."""

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
    """Return an agent whose prompt to this model is "go"."""
    return Agent(name="a", prompt_template="go", llm_config={"model": model})


class Written:
    """Writes records at once, into a list."""

    def __init__(self) -> None:
        self.given: list[Record] = []

    async def submit(self, item: Record) -> bool:
        """See ``Records``."""
        self.given.append(item)
        return True


def job_of(
    agent: Agent, *, attempt: int = 1, lease: Lease | None = None, records: Records | None = None
) -> Job:
    """Return an attempt of an agent, in a separate run.

    Args:
        agent: The only agent of the workflow.
        attempt: Number of the attempt.
        lease: The lease of the attempt. If it is None, the current task gets a new lease.
        records: Writes the attempt's records. If it is None, the records go into a new list.
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

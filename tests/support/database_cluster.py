"""The protocol of one run; a test executes each step, and no worker processes run."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from app.domain.agent import Agent
from app.domain.budgets import BudgetTerms, StandingScope
from app.domain.money import HoldAnswer, HoldRequest
from app.domain.run_options import RunOptions
from app.domain.status import AgentStatus
from app.domain.workflow import Workflow
from app.storage import (
    admission,
    claims,
    holds,
    leases,
    new_runs,
    progress,
    records,
    runs,
    standing,
)

T = TypeVar("T")


def agent(name: str, *dependencies: str, provider: str = "openai", **fields: Any) -> Agent:
    model = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5"}[provider]
    return Agent(
        name=name,
        prompt_template=fields.pop("prompt_template", "go"),
        llm_config={"model": model},
        dependencies=dependencies,
        **fields,
    )


@dataclass
class Cluster:
    """One database, and the steps that scheduler, lanes and watchdog take on it."""

    engine: AsyncEngine

    async def commit(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self.engine.begin() as connection:
            return await step(connection)

    async def start(
        self,
        *agents: Agent,
        name: str = "test",
        tenant: str | None = None,
        own_labels: Mapping[str, str] | None = None,
        **rules: Any,
    ) -> UUID:
        """Enqueue and admit a run."""
        workflow = Workflow(name=name, agents=agents, **rules)
        options = RunOptions(tenant=tenant, labels=own_labels or {})

        async def create(connection: AsyncConnection) -> UUID:
            workflow_id = await runs.store_workflow(connection, workflow)
            return await new_runs.create_run(connection, workflow, workflow_id, {}, options)

        run_id = await self.commit(create)
        await self.commit(lambda c: admission.admit(c, max_running=1000))
        return run_id

    async def claim(
        self,
        run_id: UUID,
        *,
        level: int = 0,
        provider: str = "openai",
        width: int = 100,
        busy: int = 0,
        lease_s: float = 60.0,
        max_recoveries: int = 3,
        worker: str = "w1",
    ) -> claims.Claim:
        request = claims.ClaimRequest(
            run_id=run_id, level=level, provider=provider, width=width, busy=busy
        )
        (claim,) = await self.commit(
            lambda c: claims.claim(
                c, [request], worker=worker, lease_s=lease_s, max_recoveries=max_recoveries
            )
        )
        return claim

    async def hold(self, *requests: HoldRequest) -> list[HoldAnswer]:
        return await self.commit(lambda c: holds.place_holds(c, requests))

    async def record(self, *written: records.Record) -> list[bool]:
        return await self.commit(lambda c: records.apply_records(c, written))

    async def set_budget(
        self,
        scope: str,
        subject: str = "",
        limit: str = "1",
        *,
        from_start: bool = False,
        **terms: Any,
    ) -> tuple[UUID, ...]:
        """Set a standing budget, and return the agents to wake."""
        wanted = BudgetTerms(
            scope=StandingScope(scope), subject=subject, limit_usd=Decimal(limit), **terms
        )
        return await self.commit(lambda c: standing.set_budget(c, wanted, from_start=from_start))

    async def next_day(self) -> None:
        """Make the accounts a day older, as if the database's clock had passed midnight."""
        # First move all accounts by an offset, because UNIQUE is checked row by row.
        for days in (36_501, -36_500):
            await self.rows(
                "UPDATE budgets SET period_start = period_start - make_interval(days => :days)"
                " WHERE period = 'day' RETURNING id",
                days=days,
            )

    async def advance(self, run_id: UUID, level: int) -> progress.Progress:
        (moved,) = await self.commit(lambda c: progress.advance(c, [(run_id, level)]))
        return moved

    async def recover(self, *, max_recoveries: int = 3) -> list[leases.Lost]:
        return await self.commit(lambda c: leases.recover_expired(c, max_recoveries=max_recoveries))

    async def rows(self, sql: str, **values: Any) -> Sequence[Any]:
        return (await self.commit(lambda c: c.execute(text(sql), values))).all()

    async def statuses(self, run_id: UUID) -> dict[str, str]:
        found = await self.rows("SELECT name, status FROM agent_runs WHERE run_id = :id", id=run_id)
        return {row.name: row.status for row in found}


def hold_request(
    claimed: claims.ClaimedAgent, amount: str = "0.5", *subjects: tuple[str, str]
) -> HoldRequest:
    return HoldRequest(
        call_id=uuid7(),
        agent_run_id=claimed.id,
        attempt=claimed.attempt,
        budget_ids=(claimed.run_id,),
        amount_usd=Decimal(amount),
        subjects=subjects,
    )


def call(
    claimed: claims.ClaimedAgent, hold: HoldRequest, cost: str, **fields: Any
) -> records.CallRecord:
    made = records.CallRecord(
        call_id=hold.call_id,
        run_id=claimed.run_id,
        agent_run_id=claimed.id,
        attempt=claimed.attempt,
        workflow_id=claimed.run_id,
        workflow="test",
        agent=claimed.name,
        module="General",
        provider="openai",
        model="gpt-4o-mini",
        budget_ids=(claimed.run_id,),
        cost_usd=Decimal(cost),
    )
    return replace(made, **fields)


def ending(
    claimed: claims.ClaimedAgent,
    status: AgentStatus = AgentStatus.COMPLETED,
    calls: Sequence[records.CallRecord] = (),
    **fields: Any,
) -> records.Record:
    ended = records.Ending(
        run_id=claimed.run_id,
        name=claimed.name,
        status=status,
        outcome="completed" if status is AgentStatus.COMPLETED else "failed",
        event=f"agent_{status}",
        output=f"output of {claimed.name}",
    )
    return records.Record(
        agent_run_id=claimed.id,
        attempt=claimed.attempt,
        calls=tuple(calls),
        ending=replace(ended, **fields),
    )

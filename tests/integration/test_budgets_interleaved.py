"""Holds, settlements, changes of limits and of the day at the same time: the accounts stay right.

Hypothesis draws rounds of steps; the steps of a round are transactions that run concurrently on a
real database. After each round every account must agree with the holds and the ledger.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.budgets import Period
from app.domain.money import HoldAnswer, HoldOutcome, HoldRequest
from app.storage import records
from app.storage.claims import ClaimedAgent
from app.storage.session import create_engine
from tests.support.database_cluster import Cluster, agent, call, hold_request

AGENTS = 6
RUN_LIMIT = "12"
Step = tuple[str, int, Decimal]

amounts = st.decimals(min_value="0.01", max_value=6, places=2)
steps = st.one_of(
    *(st.tuples(st.just("hold"), st.integers(0, AGENTS - 1), amounts) for _ in range(3)),
    # The cost as a share of the hold: above 1 the provider billed more than the worst case.
    st.tuples(
        st.just("settle"),
        st.integers(0, AGENTS - 1),
        st.sampled_from([Decimal(share) for share in ("0", "0.25", "1", "1", "1.5")]),
    ),
    st.tuples(st.just("limit_all"), st.just(0), amounts),
    st.tuples(st.just("limit_module"), st.just(0), amounts),
    # A day that starts at another hour is another period, and so another account.
    st.tuples(st.just("hour"), st.integers(0, 23), amounts),
)
rounds = st.lists(
    st.tuples(st.lists(steps, min_size=1, max_size=8), st.booleans()), min_size=1, max_size=6
)

_numbers = count()


@dataclass
class World:
    """One run whose agents hold and settle, under three budgets of its own."""

    cluster: Cluster
    module: str
    agents: list[ClaimedAgent]
    before: set[UUID]  # budgets that earlier worlds may have left overdrawn
    requests: dict[int, HoldRequest] = field(default_factory=dict)
    placed: set[int] = field(default_factory=set)
    facts: int = 0  # bookings above a hold, and lowered limits: only these may overdraw

    async def hold(self, who: int, amount: Decimal) -> None:
        if who in self.placed:
            return
        subjects = (("all", ""), ("module", self.module))
        request = self.requests.setdefault(
            who, hold_request(self.agents[who], str(amount), *subjects)
        )
        (answer,) = await self.cluster.hold(request)
        self._take(who, request, answer)

    def _take(self, who: int, request: HoldRequest, answer: HoldAnswer) -> None:
        if answer.outcome is HoldOutcome.PLACED:
            self.placed.add(who)
        elif answer.outcome is HoldOutcome.EXCEEDED:
            account = answer.account
            assert account is not None
            assert account.spent_usd + request.amount_usd > account.limit_usd
            del self.requests[who]
        else:
            assert answer.outcome is HoldOutcome.WAIT

    async def settle(self, who: int, share: Decimal) -> None:
        if who not in self.placed:
            return
        self.placed.remove(who)
        request = self.requests.pop(who)
        self.facts += share > 1
        made = call(self.agents[who], request, str(request.amount_usd * share))
        record = records.Record(
            agent_run_id=request.agent_run_id, attempt=request.attempt, calls=(made,)
        )
        # As after a commit with an unknown outcome, the batch comes twice.
        await self.cluster.record(record)
        await self.cluster.record(record)

    async def limit(self, scope: str, subject: str, limit: Decimal, hour: int = 0) -> None:
        self.facts += 1
        await self.cluster.set_budget(
            scope, subject, str(limit), period=Period.DAY, start_hour=hour
        )

    def do(self, step: Step) -> Awaitable[Any]:
        name, who, amount = step
        match name:
            case "hold":
                return self.hold(who, amount)
            case "settle":
                return self.settle(who, amount)
            case "limit_all":
                return self.limit("all", "", amount)
            case "limit_module":
                return self.limit("module", self.module, amount)
            case _:
                return self.limit("all", "", amount, hour=who)

    async def check(self) -> None:
        """Check the laws that hold between any two transactions."""
        wrong = await self.cluster.rows("""
            SELECT b.* FROM budgets b
            LEFT JOIN (
                SELECT budget AS id, sum(amount_usd) AS usd
                FROM holds, unnest(budget_ids) AS budget GROUP BY budget
            ) held ON held.id = b.id
            LEFT JOIN (
                SELECT budget AS id, sum(cost_usd) AS usd
                FROM cost_entries, unnest(budget_ids) AS budget GROUP BY budget
            ) spent ON spent.id = b.id
            WHERE b.held_usd <> coalesce(held.usd, 0) OR b.spent_usd <> coalesce(spent.usd, 0)
                OR b.overdrawn_usd <> greatest(0, b.spent_usd + b.held_usd - b.limit_usd)
        """)
        assert wrong == []
        if not self.facts:
            overdrawn = await self.cluster.rows("SELECT id FROM budgets WHERE overdrawn_usd > 0")
            assert {id_ for (id_,) in overdrawn} <= self.before

    async def drain(self) -> None:
        """Check that every waiting agent gets an answer once all holds have settled."""
        for _ in range(2 * AGENTS):
            for who in sorted(self.placed):
                await self.settle(who, Decimal("0.5"))
            for who, request in list(self.requests.items()):
                await self.hold(who, request.amount_usd)
        assert not self.requests
        assert await self.cluster.rows("SELECT agent_run_id FROM hold_queue") == []


def one_each(concurrent: list[Step]) -> list[Step]:
    """An agent makes one call at a time, and an operator one change."""
    return list(
        {
            step[1] if step[0] in ("hold", "settle") else step[0]: step for step in concurrent
        }.values()
    )


async def begin(cluster: Cluster) -> World:
    """A new world without traces of earlier ones, whose entries stay in the ledger."""
    await cluster.next_day()
    before = {id_ for (id_,) in await cluster.rows("SELECT id FROM budgets")}
    module = f"module_{next(_numbers)}"
    agents = [agent(f"a{index}", cost_limit=1000.0, module=module) for index in range(AGENTS)]
    run_id = await cluster.start(
        *agents, max_parallel_agents=AGENTS, cost_budget=float(RUN_LIMIT), name=module
    )
    claimed = list((await cluster.claim(run_id)).agents)
    await cluster.set_budget("all", "", "8", period=Period.DAY)
    await cluster.set_budget("module", module, "7", period=Period.DAY)
    return World(cluster=cluster, module=module, agents=claimed, before=before)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=rounds)
def test_no_interleaving_of_holds_and_changes_breaks_an_account(
    database_url: str, plan: list[tuple[list[Step], bool]]
) -> None:
    async def play() -> None:
        engine = create_engine(database_url)
        try:
            world = await begin(Cluster(engine))
            for concurrent, midnight in plan:
                await asyncio.gather(*(world.do(step) for step in one_each(concurrent)))
                await world.check()
                if midnight:
                    await world.cluster.next_day()
            await world.drain()
            await world.check()
        finally:
            await engine.dispose()

    asyncio.run(play())

"""Runs with a sub-workflow, which tests start on a cluster without workers."""

from functools import partial
from typing import Any
from uuid import UUID

from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.storage.claims import ClaimedAgent
from app.storage.sub_runs import SubRunAnswer, SubRunRequest, start_sub_run
from tests.support.database_cluster import Cluster, agent
from tests.support.run_control import admit

INNER = Workflow(name="inner", agents=[agent("x"), agent("y", "x")], cost_budget=0.8)
CHECK = Agent(name="check", kind="workflow", config={"workflow": INNER}, cost_limit=0.5)


def sub_run(claimed: ClaimedAgent, inner: Workflow = INNER) -> SubRunRequest:
    return SubRunRequest(
        agent_run_id=claimed.id,
        attempt=claimed.attempt,
        run_id=claimed.run_id,
        workflow=inner,
        input={},
        limit_usd=claimed.limit_usd,
        thresholds=(50,),
    )


async def start(cluster: Cluster, wished: SubRunRequest) -> SubRunAnswer:
    return await cluster.commit(partial(start_sub_run, request=wished))


async def claim_check(cluster: Cluster, run_id: UUID) -> ClaimedAgent:
    (claimed,) = (await cluster.claim(run_id, provider="scheduler")).agents
    return claimed


async def inner_of(cluster: Cluster, run_id: UUID) -> UUID:
    (row,) = await cluster.rows(
        "SELECT id FROM runs WHERE ancestors[cardinality(ancestors)] = :id", id=run_id
    )
    inner_id: UUID = row.id
    return inner_id


async def nested(cluster: Cluster, *more: Agent, **rules: Any) -> tuple[UUID, UUID]:
    """Return a run whose agent waits for a sub-workflow, and the sub-workflow's admitted run."""
    outer = await cluster.start(CHECK, *more, **rules)
    assert await start(cluster, sub_run(await claim_check(cluster, outer))) == "waiting"
    await admit(cluster)
    return outer, await inner_of(cluster, outer)


async def check(cluster: Cluster, run_id: UUID) -> Any:
    (row,) = await cluster.rows(
        "SELECT * FROM agent_runs WHERE run_id = :id AND name = 'check'", id=run_id
    )
    return row

"""Steps that control a run, for tests on a cluster without workers."""

from decimal import Decimal
from functools import partial
from uuid import UUID

from app.domain.status import AgentStatus, WorkflowStatus
from app.storage import admission, control, progress, runs, stopping
from app.storage import rerun as reruns
from app.storage.runs import RunRecord
from tests.support.database_cluster import Cluster, ending


async def pause(cluster: Cluster, run_id: UUID) -> bool:
    return await cluster.commit(partial(control.pause, run_id=run_id))


async def resume(cluster: Cluster, run_id: UUID) -> bool:
    return await cluster.commit(partial(control.resume, run_id=run_id))


async def retry(
    cluster: Cluster, run_id: UUID, cost_budget: str | None = None, *, name: str | None = None
) -> bool:
    limit = None if cost_budget is None else Decimal(cost_budget)
    step = partial(control.retry_failed, run_id=run_id, agent=name, cost_budget=limit)
    return await cluster.commit(step)


async def stop(cluster: Cluster, run_id: UUID) -> bool:
    step = partial(stopping.stop, run_id=run_id, as_=WorkflowStatus.CANCELLED, reason="enough")
    return await cluster.commit(step)


async def rerun(cluster: Cluster, run_id: UUID, name: str) -> UUID:
    return await cluster.commit(partial(reruns.rerun, run_id=run_id, agent=name))


async def admit(cluster: Cluster) -> list[progress.LevelPlan]:
    return await cluster.commit(lambda c: admission.admit(c, max_running=1000))


async def read(cluster: Cluster, run_id: UUID) -> RunRecord:
    (record,) = await cluster.commit(lambda c: runs.read_runs(c, [run_id]))
    return record


async def events(cluster: Cluster, run_id: UUID) -> list[str]:
    rows = await cluster.rows("SELECT type FROM events WHERE run_id = :id ORDER BY id", id=run_id)
    return [row.type for row in rows if row.type.startswith("run_")]


async def end_level(
    cluster: Cluster, run_id: UUID, level: int, **status_of: AgentStatus
) -> progress.Progress:
    claim = await cluster.claim(run_id, level=level)
    await cluster.record(
        *(ending(one, status_of.get(one.name, AgentStatus.COMPLETED)) for one in claim.agents)
    )
    return await cluster.advance(run_id, level)

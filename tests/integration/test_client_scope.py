"""No method of a client reaches a run of another tenant.

The methods are found by introspection: a new one that takes the id of a run must answer UnknownRun,
and one that takes none must be listed here with a test of its own.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, get_type_hints
from uuid import UUID

import pytest

from app.client.client import Client
from app.client.enqueues import Wanted
from app.costs.reports import NO_COSTS, ReportFilter
from app.domain.agent import Agent
from app.domain.run_filter import RunFilter
from app.domain.run_options import RunOptions
from app.domain.scope import Scope
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import OutOfScope, RunConflict, UnknownRun
from app.storage.prune import Pruned
from app.storage.runs import AgentRunRecord
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio

ACME, OTHER = Scope(tenant="acme"), Scope(tenant="other")
WAIT_S = scaled(20)
WORKFLOW = Workflow(name="one", agents=[agent("a")])
#: What the methods that take the id of a run are given beside it.
ARGUMENTS: dict[str, Any] = {
    "timeout_s": 0.0,
    "after": 0,
    "reason": "enough",
    "cost_budget": 100.0,
    "agent": "a",
}
#: Subjects of the whole installation: a tenant's client has none of them.
OF_ALL = {"limits", "live_state"}


def subjects() -> Iterator[tuple[str, type]]:
    """The subjects of a client, with their classes."""
    for name, value in vars(Client).items():
        if isinstance(value, cached_property | property):
            getter = value.func if isinstance(value, cached_property) else value.fget
            yield name, get_type_hints(getter)["return"]


def methods() -> Iterator[tuple[str, dict[str, inspect.Parameter]]]:
    """The public methods of the subjects that a tenant's client has, with their parameters."""
    for subject, kind in subjects():
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if subject not in OF_ALL and not name.startswith("_"):
                yield f"{subject}.{name}", dict(inspect.signature(method).parameters)


METHODS = dict(methods())
OF_A_RUN = sorted(name for name, parameters in METHODS.items() if "run_id" in parameters)


@dataclass
class Tenants:
    """Two tenants, and a run of the first one that has ended."""

    acme: Client
    other: Client
    run_id: UUID
    workflow_id: UUID
    agents: list[AgentRunRecord]


@pytest.fixture
async def tenants(client: Client, cluster: Cluster) -> Tenants:
    acme, other = client.within(ACME), client.within(OTHER)
    run_id = await cluster.start(agent("a"), tenant="acme")
    (claimed,) = (await cluster.claim(run_id)).agents
    made = call(claimed, hold_request(claimed), "0.5", tenant="acme")
    await cluster.record(ending(claimed, calls=[made]))
    await cluster.advance(run_id, 0)
    await cluster.rows(
        "UPDATE runs SET finished_at = finished_at - interval '1 hour' RETURNING id",
    )
    record = await acme.runs.read(run_id)
    return Tenants(acme, other, run_id, record.workflow_id, [*await acme.runs.agents(run_id)])


async def answer_of(client: Client, method: str, run_id: UUID) -> Any:
    """What a method answers; the first item, if it is one that yields."""
    subject, _, name = method.partition(".")
    required = {key for key, each in METHODS[method].items() if each.default is each.empty}
    missing = required - ARGUMENTS.keys() - {"self", "run_id"}
    assert not missing, f"give values for them in ARGUMENTS: {missing}"
    given = {key: ARGUMENTS[key] for key in METHODS[method].keys() & ARGUMENTS.keys()}
    answer = getattr(getattr(client, subject), name)(run_id=run_id, **given)
    async with asyncio.timeout(WAIT_S):
        return await (anext(answer) if isinstance(answer, AsyncIterator) else answer)


def test_the_methods_are_found() -> None:
    assert {name for name, _ in subjects()} >= {"runs", "control", "history", "workflows"} | OF_ALL
    assert {"runs.wait", "control.cancel", "history.texts", "results.outputs"} <= set(OF_A_RUN)


@pytest.mark.parametrize("method", OF_A_RUN)
async def test_a_run_of_another_tenant_is_as_unknown_as_none(tenants: Tenants, method: str) -> None:
    with pytest.raises(UnknownRun) as foreign:
        await answer_of(tenants.other, method, tenants.run_id)
    with pytest.raises(UnknownRun) as missing:
        await answer_of(tenants.other, method, UUID(int=7))

    assert str(foreign.value) == str(missing.value).replace(str(UUID(int=7)), str(tenants.run_id))
    assert (await tenants.acme.runs.read(tenants.run_id)).status is WorkflowStatus.COMPLETED


@pytest.mark.parametrize("method", sorted(set(OF_A_RUN) - {"history.texts"}))
async def test_its_own_tenant_and_everything_reach_it(
    tenants: Tenants, client: Client, method: str
) -> None:
    for reaching in (tenants.acme, client):
        assert await answer_of(reaching, method, tenants.run_id) is not None


async def enqueues_its_own(tenants: Tenants) -> None:
    run_id = await tenants.other.runs.enqueue(WORKFLOW, {})

    with pytest.raises(UnknownRun):
        await tenants.acme.runs.read(run_id)
    with pytest.raises(OutOfScope, match="'acme'"):
        await tenants.other.runs.enqueue(WORKFLOW, {}, RunOptions(tenant="acme"))


async def enqueues_all_its_own(tenants: Tenants) -> None:
    wanted = Wanted(workflow=WORKFLOW, input={}, options=RunOptions())
    own = await tenants.other.runs.enqueue_many([wanted] * 2)

    for run_id in own:
        with pytest.raises(UnknownRun):
            await tenants.acme.runs.read(run_id)
    foreign = replace(wanted, options=RunOptions(tenant="acme"))
    with pytest.raises(OutOfScope, match="'acme'"):
        await tenants.other.runs.enqueue_many([wanted, foreign])
    assert len(await tenants.other.runs.list(None, 10)) == len(own)


async def waits_for_its_own(tenants: Tenants) -> None:
    states = await tenants.acme.runs.wait_all([tenants.run_id], 1.0)

    assert states == [WorkflowStatus.COMPLETED]
    with pytest.raises(UnknownRun):
        await tenants.other.runs.wait_all([tenants.run_id], 1.0)


async def lists_its_own(tenants: Tenants) -> None:
    own = await tenants.other.runs.enqueue(WORKFLOW, {})

    assert [run.id for run in await tenants.other.runs.list(None, 10)] == [own]
    assert [run.id for run in await tenants.acme.runs.list(None, 10)] == [tenants.run_id]


async def reports_its_own_costs(tenants: Tenants) -> None:
    foreign = ReportFilter(runs=RunFilter(tenant="acme"))

    for only in (ReportFilter(), foreign):
        report = await tenants.other.costs.report(["run"], only)
        assert (report.lines, report.total) in (([], NO_COSTS), ((), NO_COSTS))
        own = await tenants.acme.costs.report(["tenant", "run"], only)
        assert [line.keys for line in own.lines] == [("acme", str(tenants.run_id))]
        assert own.total.cost_usd == Decimal("0.5")
    with pytest.raises(UnknownRun):
        await tenants.other.costs.report(["run"], ReportFilter(run_id=tenants.run_id))


async def prunes_its_own(tenants: Tenants) -> None:
    assert await tenants.other.control.prune(60, dry_run=True) == Pruned()
    assert await tenants.other.control.prune(60) == Pruned()
    assert (await tenants.acme.results.outputs(tenants.run_id)) == {"a": "output of a"}
    assert (await tenants.acme.control.prune(60, dry_run=True)).runs == 1
    assert (await tenants.acme.control.prune(60)).runs == 1


async def wakes_nobody(tenants: Tenants) -> None:
    with pytest.raises(OutOfScope, match="scope ALL"):
        await tenants.other.control.wake([each.id for each in tenants.agents])


async def reads_no_stream(tenants: Tenants) -> None:
    with pytest.raises(OutOfScope, match="scope ALL"):
        tenants.other.history.consumer("group", "name", after=0, stale_s=1)


async def stores_a_workflow(tenants: Tenants) -> None:
    first = await tenants.other.workflows.register(WORKFLOW)

    assert await tenants.other.workflows.register(WORKFLOW) == first


async def reads_no_stored_workflow(tenants: Tenants) -> None:
    for tenant in (tenants.other, tenants.acme):
        with pytest.raises(OutOfScope, match="read the workflow of a run"):
            await tenant.workflows.read(tenants.workflow_id)


async def checks_its_own(tenants: Tenants) -> None:
    named = Agent(name="b", kind="workflow", config={"workflow": "of another tenant"})

    assert (await tenants.other.workflows.check(WORKFLOW, {})).name == WORKFLOW.name
    with pytest.raises(OutOfScope):
        await tenants.other.workflows.check(Workflow(name="outer", agents=[named]), {})


async def reads_what_workers_load(tenants: Tenants) -> None:
    """The names of the operator's code are no tenant's."""
    assert await tenants.other.workflows.live_workers() == []


WITHOUT_A_RUN: dict[str, Callable[[Tenants], Awaitable[None]]] = {
    "runs.enqueue": enqueues_its_own,
    "runs.enqueue_many": enqueues_all_its_own,
    "runs.list": lists_its_own,
    "runs.wait_all": waits_for_its_own,
    "costs.report": reports_its_own_costs,
    "control.prune": prunes_its_own,
    "control.wake": wakes_nobody,
    "history.consumer": reads_no_stream,
    "workflows.register": stores_a_workflow,
    "workflows.read": reads_no_stored_workflow,
    "workflows.check": checks_its_own,
    "workflows.live_workers": reads_what_workers_load,
}


@pytest.mark.parametrize("method", sorted(METHODS.keys() - set(OF_A_RUN)))
async def test_a_method_that_takes_no_run_stays_within_the_scope(
    tenants: Tenants, method: str
) -> None:
    await WITHOUT_A_RUN[method](tenants)


@pytest.mark.parametrize("subject", sorted(OF_ALL))
async def test_a_tenant_has_no_subject_of_the_installation(tenants: Tenants, subject: str) -> None:
    with pytest.raises(OutOfScope, match="scope ALL"):
        getattr(tenants.other, subject)


async def test_a_tenant_runs_no_transaction_of_its_own(tenants: Tenants) -> None:
    async def step(_: object) -> None:
        raise AssertionError("it was run")

    with pytest.raises(OutOfScope, match="rows of all tenants"):
        await tenants.other.transaction(step)


async def test_a_client_has_no_other_public_method() -> None:
    own = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_"}

    assert own == {"within", "transaction", "close"}


async def test_a_run_without_a_tenant_is_no_tenants(client: Client) -> None:
    run_id = await client.runs.enqueue(WORKFLOW, {})

    assert (await client.runs.read(run_id)).id == run_id
    with pytest.raises(UnknownRun):
        await client.within(Scope(tenant="default")).runs.read(run_id)


async def test_the_key_of_another_tenants_run_tells_nothing_of_it(tenants: Tenants) -> None:
    run_id = await tenants.acme.runs.enqueue(WORKFLOW, {}, RunOptions(key="invoice-42"))

    with pytest.raises(RunConflict, match="run of another tenant") as refused:
        await tenants.other.runs.enqueue(WORKFLOW, {}, RunOptions(key="invoice-42"))

    assert str(run_id) not in str(refused.value)
    assert "acme" not in str(refused.value)


async def test_the_name_of_a_sub_workflow_finds_no_other_tenants(tenants: Tenants) -> None:
    await tenants.acme.workflows.register(Workflow(name="secret", agents=[agent("a")]))
    inner = Agent(name="inner", kind="workflow", config={"workflow": "secret"})
    outer = Workflow(name="outer", agents=[inner])

    with pytest.raises(OutOfScope, match="embed the sub-workflows"):
        await tenants.other.runs.enqueue(outer, {})
    with pytest.raises(OutOfScope, match="embed the sub-workflows"):
        await tenants.other.workflows.register(outer)


async def test_those_who_enqueue_at_once_get_runs_of_their_own_tenants(
    client: Client, cluster: Cluster
) -> None:
    clients = {name: client.within(Scope(tenant=name)) for name in ("acme", "other")}
    await asyncio.gather(
        *(each.runs.enqueue(WORKFLOW, {}) for _ in range(20) for each in clients.values())
    )

    found = await cluster.rows("SELECT xmin::text, tenant FROM runs GROUP BY 1, 2")
    assert len({xmin for xmin, _ in found}) == len(found)
    assert len(await clients["acme"].runs.list(None, 100)) == 20

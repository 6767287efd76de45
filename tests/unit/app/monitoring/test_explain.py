"""Explanations of a run: a sentence for each reason."""

from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from app.domain.status import WorkflowStatus
from app.monitoring.explain import Live, explain_waits
from app.monitoring.findings import Finding, Reason, condensed
from app.monitoring.run_facts import BudgetState, Standing
from app.monitoring.whole_run import Place
from app.monitoring.wording import names
from tests.support.histories import (
    RUN_ID,
    agent,
    at,
    attempt,
    history,
    standing,
)

BUCKET = {
    "bucket": "openai/default",
    "waiting": 12,
    "concurrency": None,
    "in_flight": 3,
    "paused_s": 0,
    "next_free_s": 3.2,
    "tiers": [
        {"tier": "tokens", "limit": 90_000, "level": 80_000, "capacity": 90_000},
        {"tier": "requests", "limit": 60, "level": 0.4, "capacity": 60},
    ],
}
LIMITED = Live(
    buckets={"openai/default": BUCKET}, bucket_of=lambda provider, _: f"{provider}/default"
)


def why(one: Standing, live: Live = Live(), **run: Any) -> Finding:  # noqa: B008  immutable
    open_ = agent(one.agent, one.level, status=one.status)
    (found,) = explain_waits(history(open_, standing=(one,), run=run), live)
    return found


def test_an_agent_of_a_paused_run_waits() -> None:
    found = why(standing("a"), status=WorkflowStatus.PAUSED)

    assert (found.reason, found.agents) == (Reason.PAUSED, ("a",))
    assert found.remedy == f"agentchord resume {RUN_ID}"


def test_a_run_waits_to_be_admitted() -> None:
    assert why(standing("a"), status=WorkflowStatus.PENDING).reason is Reason.ADMISSION


@pytest.mark.parametrize("status", [WorkflowStatus.PENDING, WorkflowStatus.RUNNING])
def test_no_worker_serves_its_queue(status: WorkflowStatus) -> None:
    queue = "scheduler" if status is WorkflowStatus.PENDING else "openai"

    found = why(standing("a"), Live(unserved=frozenset((queue,))), status=status)

    assert found.reason is Reason.NO_WORKER
    assert found.text == f"waits for a worker, because no worker serves queue {queue!r}"


def test_a_running_agent_whose_queue_no_worker_serves_has_lost_its_worker() -> None:
    found = why(standing("a", status="running", worker="w7"), Live(unserved=frozenset({"openai"})))

    assert found.reason is Reason.NO_WORKER
    assert found.text.startswith("was running on w7, and waits for a worker")
    assert found.remedy == "agentchord up, or agentchord worker openai"


def test_a_ready_agent_without_a_scheduler_does_not_blame_the_workers() -> None:
    found = why(standing("a"), Live(unserved=frozenset({"scheduler"})))

    assert found.reason is Reason.NO_WORKER
    assert found.remedy == "agentchord up, or agentchord worker scheduler"


def test_an_agent_waits_for_what_it_depends_on() -> None:
    run = history(
        agent("done"),
        agent("open", status="running"),
        agent("next", 1, status="pending"),
        dependencies={"next": ["done", "open"]},
        standing=(standing("next", level=1),),
    )

    (found,) = explain_waits(run, Live())

    assert (found.reason, found.text) == (
        Reason.DEPENDENCY,
        "waits for its dependencies: open",
    )


def test_an_agent_whose_dependencies_are_done_waits_for_its_level() -> None:
    run = history(
        agent("done"),
        agent("other", status="running"),
        agent("next", 1, status="pending"),
        dependencies={"next": ["done"]},
        standing=(standing("next", level=1),),
    )

    (found,) = explain_waits(run, Live())

    assert found.reason is Reason.LEVEL
    assert found.text == "waits for earlier levels: other not done"


def test_an_agent_waits_for_a_place() -> None:
    assert why(standing("a")).reason is Reason.PLACE


def test_an_agent_waits_for_the_end_of_its_backoff() -> None:
    failed = attempt("a", 0, 1, outcome="failed", error="503", error_class="ServerFailure")
    open_ = agent("a", status="pending")
    run = history(open_, standing=(standing("a", ready_at=at(104), retries=2),), attempts=(failed,))

    (found,) = explain_waits(run, Live())

    assert found.reason is Reason.BACKOFF
    assert found.text == "waits 4.0 s before its next try (retry 2) after ServerFailure: 503"


@pytest.mark.parametrize(
    ("waits_for", "reason"),
    [
        ("openai/default pause", Reason.PROVIDER_PAUSE),
        ("openai/default requests_per_day", Reason.LIMIT),
        ("openai/gpt-4o circuit", Reason.CIRCUIT),
        ("money of the budget of all", Reason.MONEY),
    ],
)
def test_a_long_wait_says_what_it_is_for(waits_for: str, reason: Reason) -> None:
    found = why(standing("a", ready_at=at(100 + 7200), waits_for=waits_for))

    assert found.reason is reason
    assert waits_for.removesuffix(" pause") in found.text
    assert "2.0 h" in found.text


def test_an_agent_waits_for_a_rate_limit() -> None:
    found = why(standing("a", status="running"), LIMITED)

    assert found.reason is Reason.LIMIT
    assert found.text == (
        "waits for the rate limit openai/default: requests, 0.4 left, limit 60; "
        "12 requests of the cluster wait for it, the next may start in 3.2 s"
    )


def test_an_agent_waits_for_a_place_among_concurrent_requests() -> None:
    bucket = BUCKET | {"concurrency": 3, "tiers": []}
    live = replace(LIMITED, buckets={"openai/default": bucket})

    found = why(standing("a", status="running"), live)

    assert "3 of 3 concurrent requests are under way" in found.text


def test_an_agent_waits_for_a_provider_that_asked_for_a_pause() -> None:
    live = replace(LIMITED, buckets={"openai/default": BUCKET | {"paused_s": 20}})

    assert why(standing("a", status="running"), live).reason is Reason.PROVIDER_PAUSE


def test_an_agent_waits_for_an_open_circuit() -> None:
    circuit = {"provider": "openai", "model": "gpt-4o", "state": "open", "wait_s": 12}

    found = why(standing("a", status="running"), replace(LIMITED, circuits=(circuit,)))

    assert found.reason is Reason.CIRCUIT
    assert "next try in 12.0 s" in found.text


def test_an_agent_waits_for_money_of_the_budget_that_is_short() -> None:
    budgets = [
        BudgetState(
            id=UUID(int=number),
            scope=scope,
            subject=subject,
            period="none",
            limit_usd=Decimal(limit),
            spent_usd=Decimal("0.5"),
            held_usd=Decimal("0.4"),
        )
        for number, (scope, subject, limit) in enumerate([("run", "", "1"), ("module", "HR", "9")])
    ]
    one = standing(
        "a",
        status="running",
        money_since=at(95),
        money_usd=Decimal("0.2"),
        budgets=tuple(budgets),
    )

    found = why(one)

    assert found.reason is Reason.MONEY
    assert "for 5.0 s: its next call may cost up to $0.2" in found.text
    assert "budget of run has $0.10 free of $1.00 ($0.40 held by calls under way)" in found.text
    assert "HR" not in found.text


def test_an_agent_that_calls_or_uses_a_tool_does_not_wait() -> None:
    calling = why(standing("a", status="running", calling_since=at(97.5)), LIMITED)
    tool = why(standing("a", status="running", tool="fetch_page"))

    assert (calling.reason, calling.text) == (Reason.CALLING, "calls openai/gpt-4o, for 2.5 s")
    assert (tool.reason, tool.text) == (Reason.TOOL, "runs the tool 'fetch_page'")


def test_an_agent_that_is_a_run_or_a_list_goes_on_with_it() -> None:
    child = agent("child", status="waiting", sub_run_id=UUID(int=7))
    items = agent("list", status="waiting", item_count=9, items_ended=4)

    sub_run, list_ = explain_waits(history(child, items), Live())

    assert (sub_run.reason, list_.reason) == (Reason.SUB_RUN, Reason.ITEMS)
    assert list_.text == "works on its items: 4 of 9 have ended"


def inner_run(number: int, **fields: Any) -> Place:
    """The inner run of an element of the list ``handled``."""
    given: dict[str, Any] = {
        "run_id": UUID(int=100 + number),
        "workflow": "handle",
        "status": WorkflowStatus.RUNNING,
        "level": 0,
        "prefix": f"handled[{number}]/",
    }
    return Place(**given | fields)


def inside(number: int, name: str, **fields: Any) -> Standing:
    """An agent of the inner run of an element that has not ended."""
    path = f"handled[{number}]/{name}"
    return standing("handled", path=path, run_id=UUID(int=100 + number), **fields)


def waits_inside(*found: Standing, **run: Any) -> dict[str, Finding]:
    places = [inner_run(number, **run) for number in range(3)]
    list_ = agent("handled", status="waiting", item_count=3)
    told = history(
        list_,
        standing=found,
        dependencies={},
        places={place.run_id: place for place in places},
    )
    needs = {f"handled[{number}]/draft": ("read",) for number in range(3)}
    return {
        each.subject: each
        for each in explain_waits(replace(told, dependencies=needs), LIMITED)
        if each.reason is not Reason.ITEMS
    }


def test_waits_of_the_agents_of_sub_workflows_are_waits() -> None:
    found = waits_inside(
        inside(0, "read", status="running"),
        inside(1, "read", status="running"),
        inside(0, "draft", level=1),
        inside(1, "draft", level=1),
        inside(2, "other", status="running", calling_since=at(97.5)),
    )

    assert {name: each.reason for name, each in found.items()} == {
        "handled[0-1]/read": Reason.LIMIT,
        "handled[0-1]/draft": Reason.DEPENDENCY,
        "handled[2]/other": Reason.CALLING,
    }
    assert found["handled[0-1]/draft"].text == "waits for its dependencies: read"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(WorkflowStatus.PAUSED, Reason.PAUSED), (WorkflowStatus.PENDING, Reason.ADMISSION)],
)
def test_an_agent_of_a_sub_workflow_waits_as_its_own_run_waits(
    status: WorkflowStatus, reason: Reason
) -> None:
    (found,) = waits_inside(inside(0, "read"), status=status).values()

    assert found.reason is reason
    assert "max_concurrent_workflows" not in found.text


def test_agents_that_wait_for_the_same_are_told_together() -> None:
    crowd = [f"a{number}" for number in range(500)]
    run = history(
        *(agent(name, status="running") for name in crowd),
        standing=tuple(standing(name, status="running") for name in crowd),
    )

    (found,) = explain_waits(run, LIMITED)

    assert found.agents == tuple(crowd)
    assert names(found.agents) == "a0, a1, a2, a3, a4 and 495 more"


def test_many_findings_of_a_kind_are_told_in_short() -> None:
    crowd = [agent(f"b{number}", 1, status="pending") for number in range(9)]
    run = history(
        agent("slow", status="running"),
        *(agent(f"a{number}", status="running") for number in range(9)),
        *crowd,
        dependencies={one.name: [one.name.replace("b", "a")] for one in crowd},
        standing=tuple(standing(one.name, level=1) for one in crowd),
    )

    *first, rest = condensed(explain_waits(run, Live()), 3)

    assert [each.agents for each in first] == [("b0",), ("b1",)]
    assert len(rest.agents) == 7
    assert rest.predicate == "wait for their dependencies"

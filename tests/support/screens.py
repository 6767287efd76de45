"""Screens of the command line with hard content, and their snapshots at several widths.

``python -m tests.support.screens`` writes the snapshots again. A reader looks at the change before
it is committed: that is the point of the snapshots.
"""

import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Group, RenderableType

from app import Agent, Workflow
from app.cli.checks import Check
from app.cli.doctor import check_lines
from app.cli.explain import finding_lines
from app.cli.output import PlainConsole
from app.cli.plan import plan_page
from app.cli.progress_views import picture
from app.cli.run_page import run_page
from app.cli.runs import runs_table
from app.cli.watch_view import watch_lines
from app.costs.pricing import Pricing
from app.domain.policies import RateLimitConfig
from app.domain.status import WorkflowStatus
from app.monitoring.activity import Activity
from app.monitoring.explain import Live, explain_waits
from app.monitoring.findings import Finding, Reason
from app.monitoring.progress import AgentProgress
from app.monitoring.run_history import RunHistory
from app.monitoring.whole_run import WholeRun
from app.planning.calls import CallPlanner
from app.planning.forecast import forecast
from app.planning.time_bounds import time_bounds
from app.storage.runs import RunRecord
from tests.support.histories import START, agent, at, history, incomplete, standing
from tests.support.money_screens import (
    budget_history,
    budgets,
    costs,
    costs_by_run,
    estimates,
    limits,
    plain_budgets,
    plain_costs,
    prices,
    reprice,
)
from tests.support.screen_content import BIG, CJK, ERROR, LONG, TINY, run_ids

FOLDER = Path(__file__).parents[1] / "snapshots"
WIDTHS = (80, 100, 140, 200)


def record(number: int, workflow: str, status: str, **fields: Any) -> RunRecord:
    """Return a stored run."""
    given: dict[str, Any] = {
        "id": run_ids(8)[number],
        "workflow": workflow,
        "version": 1,
        "status": WorkflowStatus(status),
        "priority": 0,
        "tenant": None,
        "weight": 1.0,
        "workflow_id": UUID(int=3),
        "input": {},
        "error": None,
        "level": 0,
        "level_count": 4,
        "limit_usd": Decimal(1),
        "spent_usd": Decimal("0.019251"),
        "held_usd": Decimal(0),
        "created_at": START,
        "started_at": START,
        "finished_at": at(12.3),
        "pruned_at": None,
        "key": None,
        "labels": {},
        "rerun_of": None,
        "rerun_from": None,
    }
    known = RunRecord.__dataclass_fields__
    return RunRecord(**{name: value for name, value in (given | fields).items() if name in known})


def runs() -> RenderableType:
    return runs_table(
        [
            record(0, "invoices", "running", level=1, finished_at=None),
            record(1, LONG, "partially_completed", level=3, spent_usd=BIG, finished_at=at(86_400)),
            record(2, CJK, "failed", error=ERROR, spent_usd=TINY),
            record(3, "mails", "pending", started_at=None, finished_at=None, spent_usd=Decimal(0)),
            record(4, "mails", "cancelled", error="cancelled by the user"),
            record(5, "nightly-report", "completed", level=3, version=128),
        ]
    )


def hard_agents() -> tuple[AgentProgress, ...]:
    """Return agents of every kind: long, wide, lists of forty elements, failures, tiny costs."""
    return (
        agent("load", spent_usd=TINY, model="gpt-4o-mini", module="Mail"),
        agent(LONG, module="Customer-Relations-Department", model="claude-haiku-4-5-20251001"),
        agent(
            *("triage", 1),
            status="completed",
            item_count=40,
            items_ended=40,
            items_failed=2,
            items_partial=9,
            spent_usd=BIG,
            error=f"triage[7]: {ERROR}",
            first_token_s=0.41,
        ),
        agent("draft", 2, status="running", item_count=40, items_ended=17, module="財務部門"),
        agent("answer", 2, status="budget_exceeded", error=ERROR, retries=3, attempt=4),
        agent(
            *("check", 3),
            status="waiting",
            model="gpt-5.5-2026-03-05-preview",
            sub_run_id=UUID(int=7),
            spent_usd=Decimal(0),
        ),
        agent("sum_up", 3, status="pending", started_at=None, attempt=0, spent_usd=Decimal(0)),
    )


def hard_run(**fields: Any) -> RunHistory:
    """Return a run of these agents."""
    given = {"id": run_ids(1)[0], "level": 2, "workflow": "forty-mails", "limit_usd": BIG * 2}
    return history(
        *hard_agents(),
        run=given | {"spent_usd": BIG} | fields,
        dependencies={"sum_up": ["check", "draft"]},
        standing=(
            standing("draft", status="running", level=2),
            standing("sum_up", level=3),
        ),
    )


def status() -> RenderableType:
    lost = (
        incomplete("triage", "partial", missing=11, item_count=40),
        *(incomplete(f"triage[{place}]", "failed", ERROR, "RateLimited") for place in (7, 31)),
        *(incomplete(f"triage[{place}]/draft", "partial") for place in range(9, 18)),
        incomplete("answer", "budget_exceeded", ERROR, "BudgetExceeded"),
    )
    return run_page(WholeRun(run=hard_run(error=ERROR).run, incomplete=lost))


def plain_status() -> RenderableType:
    agents = (
        agent("invoice_extractor", module="Finance", model="gpt-4o-mini", attempt=2),
        agent("candidate_screener", module="HumanResources", model="claude-haiku-4-5"),
        agent("approver", 1, finished_at=at(12.34), status="failed", error="no key"),
    )
    return run_page(WholeRun(run=history(*agents, run={"id": run_ids(1)[0]}).run))


def plan() -> RenderableType:
    small = {"model": "gpt-4o-mini", "max_tokens": 1000}
    cached = {"model": "claude-haiku-4-5", "max_tokens": 20_000, "prompt_cache": True}
    agents = [
        Agent(name="load", prompt_template="Load {mails}.", llm_config=small),
        Agent(
            name=LONG,
            prompt_template="x" * 20_000 + "{load}",
            llm_config=cached,
            dependencies=["load"],
        ),
        Agent(
            name="triage",
            prompt_template="Classify {item}.",
            llm_config=small,
            for_each="input.mails",
        ),
        Agent(
            name="sum_up",
            prompt_template="Sum up {triage}.",
            llm_config=small,
            dependencies=["triage", LONG],
            cost_limit=0.000_001,
        ),
    ]
    workflow = Workflow(name="forty-mails", agents=agents, cost_budget=0.05)
    mails = {"mails": [f"mail {number}" for number in range(40)]}
    planner = CallPlanner(Pricing(), default_max_tokens=4096)
    found = forecast(workflow, mails, planner=planner, output_tokens=300)
    limit = RateLimitConfig(requests_per_minute=60, tokens_per_minute=100_000)
    bounds = time_bounds(
        found,
        lambda provider, model: (f"{provider}/default", limit),
        max_parallel_agents=10,
        latency_s=None,
    )
    return plan_page(workflow, found, bounds, {"output_tokens": 300, "latency_s": None})


def small_plan() -> RenderableType:
    one = Agent(name="only", prompt_template="Go.", llm_config={"model": "gpt-4o-mini"})
    workflow = Workflow(name="one-call", agents=[one])
    planner = CallPlanner(Pricing(), default_max_tokens=1)
    found = forecast(workflow, {}, planner=planner, output_tokens=1)
    return plan_page(workflow, found, [], {"output_tokens": 1, "latency_s": 1.5})


BUSY = Live(
    buckets={
        "openai/default": {
            "waiting": 40,
            "concurrency": 10,
            "in_flight": 10,
            "paused_s": 0,
            "tiers": [],
        }
    },
    bucket_of=lambda provider, _: f"{provider}/default",
)


class Screen:
    """A picture of the whole screen, for any width."""

    def __init__(self, run: RunHistory, height: int) -> None:
        self._run, self._height = run, height

    def __rich_console__(self, _: Any, options: Any) -> Any:
        """Yield the lines of the picture."""
        activity = Activity(history=self._run, calls=1, calls_per_s=0.5)
        waits = explain_waits(self._run, BUSY)
        size = {"width": options.max_width, "height": self._height}
        yield from watch_lines(self._run.run, activity, waits, **size)


def watch() -> RenderableType:
    return Screen(hard_run(), 24)


def watch_many() -> RenderableType:
    crowd = [
        agent(f"agent_{number}", number // 100, status="running", model="gpt-4o-mini")
        for number in range(599)
    ]
    odd = agent("odd", 9, status="failed", error=ERROR)
    waiting = tuple(standing(one.name, status="running") for one in crowd)
    return Screen(history(*crowd, odd, standing=waiting, run={"level": 3}), 24)


def follow() -> RenderableType:
    return picture(hard_run().run, {"draft": f"Dear customer, {'we are sorry. ' * 20}"})


def follow_done() -> RenderableType:
    done = [agent("parser"), agent("screener", 1, status="failed", error="no key", retries=1)]
    return picture(history(*done).run)


def doctor() -> RenderableType:
    checks = (
        Check(name="python", level="ok", finding="3.11.7 on Linux-6.1.0-x86_64-with-glibc2.36"),
        Check(
            name="openai key",
            level="warn",
            finding="not set, served at https://gateway.internal.example.com/openai/v1/deployments",
            remedy="if you use models of openai, set OPENAI_API_KEY where the workers start; "
            "without keys try `agentchord up --simulator`",
        ),
        Check(name="redis eviction", level="fail", finding="x", remedy="correct this"),
    )
    return Group(*(line for check in checks for line in check_lines(check)))


def explain() -> RenderableType:
    found = Finding(
        reason=Reason.MONEY,
        agents=("draft",),
        text=f"waits for money, for 12.3 s: {ERROR}",
        remedy="raise the budget with `agentchord retry RUN --cost-budget USD`, or wait until the "
        "calls under way have ended",
    )
    return Group(*finding_lines([found]))


SCREENS: dict[str, Callable[[], RenderableType]] = {
    each.__name__: each
    for each in (
        *(
            runs,
            status,
            plain_status,
            costs,
            plain_costs,
            costs_by_run,
            estimates,
            budgets,
            plain_budgets,
            budget_history,
        ),
        *(limits, prices, reprice, plan, small_plan, watch, watch_many, follow, follow_done),
        *(doctor, explain),
    )
}


def rendered(screen: RenderableType, width: int) -> str:
    """Return a screen as text, as a terminal of this width shows it, without blanks at the ends."""
    stream = io.StringIO()
    PlainConsole(
        file=stream, width=width, force_terminal=True, color_system=None, highlight=False
    ).print(screen)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def snapshot(name: str, width: int) -> Path:
    """Return the file with the expected text of a screen."""
    return FOLDER / f"{name}-{width}.txt"


def main() -> None:
    """Write all snapshots."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, screen in SCREENS.items():
        for width in WIDTHS:
            snapshot(name, width).write_text(rendered(screen(), width), encoding="utf-8")


if __name__ == "__main__":
    main()

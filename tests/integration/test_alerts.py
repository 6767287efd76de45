"""Every alert rule fires in its case and in no other.

The rules read two sorts of pages: the pages of the real exporter, which reads a real Postgres and
Redis, and the pages with a worker's real metrics. If promtool is on the PATH, Prometheus itself
evaluates the same pages.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prometheus_client import generate_latest
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from app.bootstrap import Platform, build_platform
from app.client.client import Client
from app.client.live_state import LiveState
from app.domain.policies import MonitorConfig
from app.domain.status import AgentStatus
from app.embedded.connected import connected_settings
from app.failures.circuit import Message
from app.failures.circuit_redis import RedisCircuits
from app.monitoring.exporter import Exporter, registry_of
from app.scheduler.watchdog import LOOKED_KEY, LOOKED_MS
from app.storage.records import Ending, Record
from tests.support.calls import call_of
from tests.support.database_cluster import Cluster, agent, call, hold_request
from tests.support.jobs import ID, agent_of, job_of
from tests.support.markdown import ROOT
from tests.support.promql import History, Page, alerts_of, page_of
from workers.worker_metrics import WorkerMetrics

pytestmark = pytest.mark.anyio

RULES = ROOT / "docker" / "prometheus" / "alerts.yaml"
ALERTS = alerts_of(RULES)
#: Minutes: BEFORE is longer than the range of any rule, and AFTER than the delay of any rule.
BEFORE, AFTER = 16, 8


@dataclass
class Watched:
    """A cluster, and the pages that Prometheus has read of it."""

    cluster: Cluster
    platform: Platform
    client: Client
    live_state: LiveState
    exporter_up: float = 1.0
    metrics: WorkerMetrics = field(default_factory=lambda: WorkerMetrics(MonitorConfig()))
    history: History = field(default_factory=History)

    async def read(self) -> Page:
        readers = {"postgres": self.live_state.from_postgres, "redis": self.live_state.from_redis}
        samples = await Exporter(readers).read()
        texts = generate_latest(registry_of(samples)), generate_latest(self.metrics.registry)
        up = ("up", frozenset({("job", "agentchord-exporter")}))
        return {**page_of(texts[0].decode()), **page_of(texts[1].decode()), up: self.exporter_up}

    async def spend(self, amount: str, *subjects: tuple[str, str], **rules: Any) -> UUID:
        """A run that has not ended and has made a call for these dollars."""
        run_id = await self.cluster.start(agent("a", cost_limit=50.0), agent("b", "a"), **rules)
        (claimed,) = (await self.cluster.claim(run_id)).agents
        held = hold_request(claimed, amount, *subjects)
        await self.cluster.hold(held)
        made = call(claimed, held, amount)
        written = Record(agent_run_id=claimed.id, attempt=claimed.attempt, calls=(made,))
        await self.cluster.record(written)
        return run_id

    async def book(self, days_ago: int, usd: str, outcome: str = "ok") -> None:
        """Add an entry to the ledger that is ``days_ago`` days and half an hour old."""
        await self.cluster.rows(
            "INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, workflow_id,"
            " workflow, agent, module, provider, model, kind, outcome, budget_ids, cost_usd,"
            " created_at) VALUES (gen_random_uuid(), :id, :id, 1, :id, 'w', 'a', 'General',"
            " 'openai', 'gpt-4o-mini', 'actual', :outcome, '{}', :usd,"
            " now() - make_interval(days => :days_ago, mins => 30)) RETURNING 1",
            id=uuid7(),
            outcome=outcome,
            usd=Decimal(usd),
            days_ago=days_ago,
        )

    def end(
        self,
        status: AgentStatus = AgentStatus.COMPLETED,
        *,
        times: int = 1,
        took_s: float = 1.0,
        module: str = "General",
    ) -> None:
        """End attempts in a worker, each after a call of this duration."""
        job = job_of(replace(agent_of("gpt-4o-mini"), module=module))
        ending = Ending(run_id=ID, name="a", status=status, outcome="failed", event="ended")
        if status is AgentStatus.COMPLETED:
            ending = replace(ending, outcome="completed")
        for _ in range(times):
            self.metrics.booked([call_of("gpt-4o-mini", seconds=took_s)])
            self.metrics.ended(job, ending)


@pytest.fixture
async def watched(
    cluster: Cluster, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Watched]:
    """A healthy cluster with a few events of every kind."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    connected_settings.forget()
    platform = build_platform(application_name="test")
    client = Client(platform)
    found = Watched(cluster, platform, client, client.live_state)
    await platform.redis.set(LOOKED_KEY, "", px=LOOKED_MS)
    await cluster.set_budget("workflow", "test", limit="10", period="day")
    await found.spend("0.5", ("workflow", "test"))
    for days_ago in range(1, 8):
        await found.book(days_ago, "2")
    await found.book(0, "0", "RateLimited")
    for status in (AgentStatus.COMPLETED, AgentStatus.FAILED, AgentStatus.BUDGET_EXCEEDED):
        found.end(status)
    page = await found.read()
    found.history.pages += [(60.0 * minute, page) for minute in range(BEFORE)]
    yield found
    await client.close()
    connected_settings.forget()


async def _nearly_spent(watched: Watched) -> None:
    await watched.spend("7.9", ("workflow", "test"))
    # In this test the last hour cost no more than usual.
    await watched.book(1, "90")


async def _spent(watched: Watched) -> None:
    await watched.spend("9.5", ("workflow", "test"))
    await watched.book(1, "90")


async def _soft_spent(watched: Watched) -> None:
    await watched.cluster.set_budget("module", "HR", limit="10", soft=True)
    await watched.spend("10", ("module", "HR"))
    await watched.book(1, "90")


async def _run_nearly_spent(watched: Watched) -> None:
    await watched.spend("0.85", cost_budget=1.0)


async def _run_spent(watched: Watched) -> None:
    await watched.spend("1", cost_budget=1.0)


async def _refused(watched: Watched) -> None:
    watched.end(AgentStatus.BUDGET_EXCEEDED)


async def _unusual(watched: Watched) -> None:
    await watched.book(0, "6.5")


async def _failing(watched: Watched) -> None:
    watched.end(times=40)
    watched.end(AgentStatus.FAILED, times=4)


async def _runs_failing(watched: Watched) -> None:
    for status in ("failed", "failed", "completed", "completed"):
        run_id = await watched.cluster.start(agent("a"))
        await watched.cluster.rows(
            "UPDATE runs SET status = :status, finished_at = now() WHERE id = :id RETURNING id",
            status=status,
            id=run_id,
        )


async def _slow(watched: Watched) -> None:
    watched.end(times=9)
    watched.end(times=1, took_s=45.0)


async def _stuck(watched: Watched) -> None:
    await watched.cluster.rows(
        "UPDATE events SET at = at - interval '40 minutes' RETURNING id",
    )


async def _rate_limited(watched: Watched) -> None:
    for _ in range(8):
        await watched.book(0, "0", "RateLimited")


async def _circuit(watched: Watched) -> None:
    settings = connected_settings()
    circuits = RedisCircuits(watched.platform.redis, settings.circuit_breaker)
    news = Message(process="p", number=1, bad=settings.circuit_breaker.min_failures)
    await circuits.exchange("openai/gpt-4o-mini", news)


async def _silent(watched: Watched) -> None:
    await watched.platform.redis.pexpire(LOOKED_KEY, LOOKED_MS - 100_000)


async def _service_down(watched: Watched) -> None:
    # Nothing listens on this machine's discard port.
    away = Redis.from_url("redis://127.0.0.1:9/0")
    platform = replace(watched.platform, redis=away)
    watched.live_state = LiveState(platform, watched.client.transaction)


async def _exporter_down(watched: Watched) -> None:
    watched.exporter_up = 0.0


PROVOCATIONS: dict[str, Callable[[Watched], Awaitable[None]]] = {
    "BudgetNearlySpent": _nearly_spent,
    "BudgetSpent": _spent,
    "SoftBudgetSpent": _soft_spent,
    "RunBudgetNearlySpent": _run_nearly_spent,
    "RunBudgetSpent": _run_spent,
    "AgentsRefusedForMoney": _refused,
    "UnusualSpend": _unusual,
    "AgentsFailing": _failing,
    "RunsFailing": _runs_failing,
    "CallsSlow": _slow,
    "RunStuck": _stuck,
    "RateLimited": _rate_limited,
    "CircuitOpen": _circuit,
    "WatchdogSilent": _silent,
    "ServiceDown": _service_down,
    "ExporterDown": _exporter_down,
}


def test_the_text_of_an_alert_names_a_period_only_if_there_is_one() -> None:
    texts = [each.annotations["summary"] for each in ALERTS if "$labels.period" in str(each)]

    guarded = '{{ if ne $labels.period "none" }}{{ $labels.period }} {{ end }}'
    assert texts
    assert not [text for text in texts if "$labels.period" in text.replace(guarded, "")]


def test_every_alert_is_provoked() -> None:
    assert PROVOCATIONS.keys() == {alert.name for alert in ALERTS}


async def test_no_alert_fires_while_all_is_well(watched: Watched, tmp_path: Path) -> None:
    await _watch_on(watched)

    assert watched.history.firing(ALERTS) == set()
    _judge_with_promtool(watched.history, set(), tmp_path)


@pytest.mark.parametrize("name", PROVOCATIONS)
async def test_an_alert_fires_when_its_reason_is_there_and_no_other(
    watched: Watched, name: str, tmp_path: Path
) -> None:
    await PROVOCATIONS[name](watched)

    await _watch_on(watched)

    assert watched.history.firing(ALERTS) == {name}
    _judge_with_promtool(watched.history, {name}, tmp_path)


async def test_the_first_agent_that_a_worker_refuses_for_money_is_told(
    watched: Watched, tmp_path: Path
) -> None:
    watched.end(AgentStatus.BUDGET_EXCEEDED, module="Finance")

    await _watch_on(watched)

    assert watched.history.firing(ALERTS) == {"AgentsRefusedForMoney"}
    _judge_with_promtool(watched.history, {"AgentsRefusedForMoney"}, tmp_path)


async def test_failed_runs_of_sub_workflows_are_no_failed_runs(
    watched: Watched, tmp_path: Path
) -> None:
    await _runs_failing(watched)
    # The runs are now the inner runs of one run, which goes on.
    await watched.cluster.rows(
        "UPDATE runs r SET parent_agent_run_id = a.id, ancestors = ARRAY[outermost.id]"
        " FROM runs outermost, agent_runs a WHERE r.finished_at IS NOT NULL AND a.run_id = r.id"
        " AND outermost.finished_at IS NULL RETURNING r.id"
    )

    await _watch_on(watched)

    assert watched.history.firing(ALERTS) == set()
    _judge_with_promtool(watched.history, set(), tmp_path)


async def _watch_on(watched: Watched) -> None:
    page = await watched.read()
    minutes = range(BEFORE, BEFORE + AFTER + 1)
    watched.history.pages += [(60.0 * minute, page) for minute in minutes]


def _judge_with_promtool(history: History, firing: set[str], folder: Path) -> None:
    """Check that Prometheus itself has the same result, if it is installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    pages = [page for _, page in history.pages]
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {
                        "series": _written(name, labels),
                        "values": " ".join(
                            str(page[name, labels]) if (name, labels) in page else "_"
                            for page in pages
                        ),
                    }
                    for name, labels in {key for page in pages for key in page}
                ],
                "promql_expr_test": [
                    {
                        "expr": 'max by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{BEFORE + AFTER}m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing
                        ],
                    }
                ],
            }
        ],
    }
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump(tests), encoding="utf-8")

    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def _written(name: str, labels: frozenset[tuple[str, str]]) -> str:
    inside = ", ".join(f'{label}="{text}"' for label, text in sorted(labels))
    return f"{name}{{{inside}}}"

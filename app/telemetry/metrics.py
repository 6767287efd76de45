"""All metrics, in two groups: the metrics of each worker, and the metrics of the exporter.

Labels have few values, such as providers, models, modules and states. No label has a run's id or an
agent's name.
"""

from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerMetric:
    """A metric that each worker process counts, from the start of the process on.

    Attributes:
        kind: Class of the Prometheus object of the metric.
        name: Name of the metric; the name of a counter ends in ``_total``.
        help: Meaning of the metric.
        labels: Names of the metric's labels.
        buckets: Upper bounds of a histogram's buckets, in seconds.
    """

    kind: type[Counter | Gauge | Histogram]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: The metric of each attribute of ``WorkerInstruments``.
WORKER_METRICS = {
    "attempts": WorkerMetric(
        kind=Counter,
        name="agentchord_attempts_total",
        help="Attempts of agents that have ended in this process",
        labels=("provider", "module", "outcome"),
    ),
    "wait_seconds": WorkerMetric(
        kind=Histogram,
        name="agentchord_wait_seconds",
        help="Time that an attempt waited for a limit, for money, or at an open circuit",
        labels=("provider", "reason"),
        buckets=SECONDS,
    ),
    "attempt_seconds": WorkerMetric(
        kind=Histogram,
        name="agentchord_attempt_seconds",
        help="Duration of attempts, including the time of waiting for limits and money",
        labels=("provider",),
        buckets=SECONDS,
    ),
    "calls": WorkerMetric(
        kind=Counter,
        name="agentchord_calls_total",
        help="Calls that reached a provider",
        labels=("provider", "model", "outcome"),
    ),
    "call_seconds": WorkerMetric(
        kind=Histogram,
        name="agentchord_call_seconds",
        help="Duration of calls, from the sending of the request to the end of the answer",
        labels=("provider", "model"),
        buckets=SECONDS,
    ),
    "first_token_seconds": WorkerMetric(
        kind=Histogram,
        name="agentchord_first_token_seconds",
        help="Time until the first token of streamed answers",
        labels=("provider", "model"),
        buckets=SECONDS,
    ),
    "tokens": WorkerMetric(
        kind=Counter,
        name="agentchord_tokens_total",
        help="Tokens of calls",
        labels=("provider", "model", "direction"),
    ),
    "cost_usd": WorkerMetric(
        kind=Counter,
        name="agentchord_cost_usd_total",
        help="Dollars that this process booked for calls",
        labels=("provider", "model", "module", "kind"),
    ),
    "in_flight": WorkerMetric(
        kind=Gauge,
        name="agentchord_attempts_in_flight",
        help="Attempts of agents that this process is running",
        labels=("provider",),
    ),
    "events_dropped": WorkerMetric(
        kind=Gauge,
        name="agentchord_task_events_dropped",
        help="Task events for Flower that were dropped because their queue was full",
    ),
}


class WorkerInstruments:
    """The Prometheus objects of one worker process, with an attribute for each metric.

    The values start at zero when the process starts. For totals over all processes and restarts,
    read the exporter's metrics; these metrics come from the ledger.

    Args:
        registry: Registry that holds the metrics.

    Example:
        instruments = WorkerInstruments(CollectorRegistry())
        instruments.calls.labels("openai", "gpt-4o", "ok").inc()
    """

    attempts: Counter
    wait_seconds: Histogram
    attempt_seconds: Histogram
    calls: Counter
    call_seconds: Histogram
    first_token_seconds: Histogram
    tokens: Counter
    cost_usd: Counter
    in_flight: Gauge
    events_dropped: Gauge

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        for attribute, metric in WORKER_METRICS.items():
            options: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
            made = metric.kind(
                metric.name, metric.help, metric.labels, registry=registry, **options
            )
            setattr(self, attribute, made)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMetric:
    """A metric of the whole cluster.

    At each request, the exporter reads the metric from Postgres and Redis.

    Attributes:
        name: Name of the metric; if the name ends in ``_total``, the value never decreases.
        help: Meaning of the metric.
        labels: Names of the metric's labels.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()


RUNS = ClusterMetric(
    name="agentchord_runs",
    help="Runs by state, without runs of sub-workflows; ended runs count until they are deleted",
    labels=("status",),
)
INNER_RUNS = ClusterMetric(
    name="agentchord_inner_runs",
    help="Runs of sub-workflows by state; ended runs count until they are deleted",
    labels=("status",),
)
RUNS_ENDED = ClusterMetric(
    name="agentchord_runs_ended_last_hour",
    help="Runs that ended in the last 60 minutes, by state, without runs of sub-workflows",
    labels=("status",),
)
INNER_RUNS_ENDED = ClusterMetric(
    name="agentchord_inner_runs_ended_last_hour",
    help="Runs of sub-workflows that ended in the last 60 minutes, by state",
    labels=("status",),
)
AGENTS = ClusterMetric(
    name="agentchord_agents",
    help="Agents of runs that have not ended",
    labels=("provider", "status"),
)
AGENTS_ADMISSIBLE = ClusterMetric(
    name="agentchord_agents_admissible",
    help="Agents that a free worker could start at once",
    labels=("provider",),
)
QUEUE_MESSAGES = ClusterMetric(
    name="agentchord_queue_messages",
    help="Messages that wait in a queue",
    labels=("queue",),
)
LIMIT_WAITING = ClusterMetric(
    name="agentchord_limit_waiting",
    help="Calls that wait for a bucket of rate limits",
    labels=("bucket",),
)
LIMIT_LEFT = ClusterMetric(
    name="agentchord_limit_left_ratio",
    help="Share of a limit that is left, from 0 to 1; negative if more than the limit was used",
    labels=("bucket", "tier"),
)
LIMIT_PAUSED = ClusterMetric(
    name="agentchord_limit_paused_seconds",
    help="Seconds for which a bucket stays paused after a refusal",
    labels=("bucket",),
)
CIRCUITS_OPEN = ClusterMetric(
    name="agentchord_circuit_open",
    help="1 for a model with a circuit that is not closed",
    labels=("provider", "model"),
)
BUDGET_LIMIT = ClusterMetric(
    name="agentchord_budget_limit_usd",
    help="Limit of a standing budget in its current period",
    labels=("scope", "subject", "period", "kind"),
)
BUDGET_SPENT = ClusterMetric(
    name="agentchord_budget_spent_usd",
    help="Dollars of a standing budget that are spent in its current period",
    labels=("scope", "subject", "period", "kind"),
)
BUDGET_HELD = ClusterMetric(
    name="agentchord_budget_held_usd",
    help="Dollars of a standing budget that are held for calls under way",
    labels=("scope", "subject", "period", "kind"),
)
RUN_BUDGET_USED = ClusterMetric(
    name="agentchord_run_budget_used_ratio",
    help="Largest spent share of a run's budget, among the runs that have not ended; the runs of "
    "sub-workflows count with their own budgets, too",
)
LEDGER_COST = ClusterMetric(
    name="agentchord_ledger_cost_usd_total",
    help="Dollars in the ledger",
    labels=("provider", "model", "module", "kind"),
)
LEDGER_CALLS = ClusterMetric(
    name="agentchord_ledger_calls_total",
    help="Calls in the ledger",
    labels=("provider", "model", "module", "kind", "outcome"),
)
LEDGER_TOKENS = ClusterMetric(
    name="agentchord_ledger_tokens_total",
    help="Tokens in the ledger",
    labels=("provider", "model", "direction"),
)
SPENT_LAST_HOUR = ClusterMetric(
    name="agentchord_spent_last_hour_usd",
    help="Dollars spent in the last 60 minutes",
)
SPENT_USUALLY = ClusterMetric(
    name="agentchord_spent_usual_hour_usd",
    help="Mean of the dollars spent in the same 60 minutes of each of the seven days before; days "
    "before the ledger's first entry are left out",
)
STALLED = ClusterMetric(
    name="agentchord_run_stalled_seconds",
    help="Longest time since the last event of a running run; a run is not counted while one of "
    "its agents waits until a given time, or for a sub-workflow",
)
WATCHDOG_SILENT = ClusterMetric(
    name="agentchord_watchdog_silent_seconds",
    help="Seconds since a watchdog last looked for lost agents",
)
WORKERS = ClusterMetric(
    name="agentchord_workers_busy",
    help="Worker processes that have agents in progress now",
)
SERVICE_UP = ClusterMetric(
    name="agentchord_service_up",
    help="1 if the service answered this reading, else 0",
    labels=("service",),
)

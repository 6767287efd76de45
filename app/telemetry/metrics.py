"""Every metric there is, by name: what each worker counts, and what the exporter reads.

Labels have few values: providers, models, modules, states, never a run's id or an agent's name.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class WorkerInstruments:
    """What one worker process counts since its start.

    Args:
        registry: Where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.attempts = Counter(
            "agentchord_attempts_total",
            "Attempts of agents that have ended here",
            ("provider", "module", "outcome"),
            registry=registry,
        )
        self.wait_seconds = Histogram(
            "agentchord_wait_seconds",
            "How long an attempt waited: for a limit, for money, or at an open circuit",
            ("provider", "reason"),
            buckets=SECONDS,
            registry=registry,
        )
        self.attempt_seconds = Histogram(
            "agentchord_attempt_seconds",
            "How long attempts took, waiting for limits and money included",
            ("provider",),
            buckets=SECONDS,
            registry=registry,
        )
        self.calls = Counter(
            "agentchord_calls_total",
            "Calls that reached a provider",
            ("provider", "model", "outcome"),
            registry=registry,
        )
        self.call_seconds = Histogram(
            "agentchord_call_seconds",
            "How long calls took, from sending to the end of the answer",
            ("provider", "model"),
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "agentchord_first_token_seconds",
            "How long streamed answers let wait for their first token",
            ("provider", "model"),
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "agentchord_tokens_total",
            "Tokens of calls",
            ("provider", "model", "direction"),
            registry=registry,
        )
        self.cost_usd = Counter(
            "agentchord_cost_usd_total",
            "Dollars of calls as booked here",
            ("provider", "model", "module", "kind"),
            registry=registry,
        )
        self.in_flight = Gauge(
            "agentchord_attempts_in_flight",
            "Attempts of agents under way here",
            ("provider",),
            registry=registry,
        )
        self.events_dropped = Gauge(
            "agentchord_task_events_dropped",
            "Task events for Flower that were dropped because their queue was full",
            registry=registry,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMetric:
    """A value of the whole cluster, read from Postgres and Redis when it is asked for.

    Attributes:
        name: Its name; one that ends in ``_total`` only grows.
        help: What it says.
        labels: Names of its labels.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()


RUNS = ClusterMetric(
    name="agentchord_runs",
    help="Runs by state; those that have ended, until they are deleted",
    labels=("status",),
)
RUNS_ENDED = ClusterMetric(
    name="agentchord_runs_ended_last_hour",
    help="Runs that ended in the last 60 minutes, by how",
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
    help="What is left of a limit, from 0 to 1; negative if it was used beyond",
    labels=("bucket", "tier"),
)
LIMIT_PAUSED = ClusterMetric(
    name="agentchord_limit_paused_seconds",
    help="For how long a bucket is paused after a refusal",
    labels=("bucket",),
)
CIRCUITS_OPEN = ClusterMetric(
    name="agentchord_circuit_open",
    help="1 where a model's circuit is not closed",
    labels=("provider", "model"),
)
BUDGET_LIMIT = ClusterMetric(
    name="agentchord_budget_limit_usd",
    help="Limit of a standing budget in its current period",
    labels=("scope", "subject", "period"),
)
BUDGET_SPENT = ClusterMetric(
    name="agentchord_budget_spent_usd",
    help="What was spent of a standing budget in its current period",
    labels=("scope", "subject", "period"),
)
BUDGET_HELD = ClusterMetric(
    name="agentchord_budget_held_usd",
    help="What is held of a standing budget for calls under way",
    labels=("scope", "subject", "period"),
)
RUN_BUDGET_USED = ClusterMetric(
    name="agentchord_run_budget_used_ratio",
    help="The largest share of its budget that a run which has not ended has spent",
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
    help="Mean of what was spent in these 60 minutes of the day on up to seven days before",
)
STALLED = ClusterMetric(
    name="agentchord_run_stalled_seconds",
    help="For how long nothing has happened in the running run in which that is longest; a run "
    "in which an agent waits until a given time, or for a sub-workflow, is not stalled",
)
WATCHDOG_SILENT = ClusterMetric(
    name="agentchord_watchdog_silent_seconds",
    help="Since when no watchdog has looked",
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

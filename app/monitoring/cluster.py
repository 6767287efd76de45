"""The cluster's state as metrics, read from Postgres and Redis at each request."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.status import WorkflowStatus
from app.telemetry import metrics
from app.telemetry.metrics import ClusterMetric

#: A metric, the values of its labels, and the value of the metric.
Sample = tuple[ClusterMetric, tuple[str, ...], float]

# The run of a sub-workflow is a part of its outer run, so the counts of runs leave it out. Inner
# runs have counts of their own.
RUNS: TextClause = text("""
    SELECT parent_agent_run_id IS NOT NULL, status, count(*) FROM runs GROUP BY 1, 2
""")
AGENTS: TextClause = text("""
    SELECT a.provider, a.status, count(*) FROM agent_runs a JOIN runs r ON r.id = a.run_id
    WHERE r.status IN ('pending', 'running', 'paused') GROUP BY a.provider, a.status
""")
# The agents that free lanes could claim. A run adds only the agents that max_parallel_agents
# allows.
ADMISSIBLE: TextClause = text("""
    SELECT provider, sum(least(ready, share)) FROM (
        SELECT a.provider, count(*) AS ready, greatest(r.max_parallel_agents - (
            SELECT count(*) FROM agent_runs b WHERE b.run_id = r.id AND b.status = 'running'
                AND b.level = r.level), 0) AS share
        FROM runs r JOIN agent_runs a ON a.run_id = r.id AND a.level = r.level
        WHERE r.status = 'running' AND r.stop_as IS NULL AND a.status = 'pending'
            AND a.ready_at <= clock_timestamp()
        GROUP BY r.id, a.provider
    ) ready GROUP BY provider
""")
BUDGETS: TextClause = text("""
    SELECT DISTINCT ON (b.scope, b.subject, b.period)
        b.scope, b.subject, b.period, b.soft, b.limit_usd, b.spent_usd, b.held_usd
    FROM budgets b JOIN standing_budgets s USING (scope, subject, period)
    WHERE b.period_start IS NULL OR b.period_start <= clock_timestamp()
    ORDER BY b.scope, b.subject, b.period, b.period_start DESC NULLS LAST
""")
RUN_BUDGETS: TextClause = text("""
    SELECT max(b.spent_usd / b.limit_usd) FROM runs r JOIN budgets b ON b.id = r.id
    WHERE r.status IN ('pending', 'running', 'paused') AND b.limit_usd > 0
""")
LEDGER: TextClause = text("""
    SELECT provider, model, module, kind, outcome, sum(calls) AS calls, sum(cost_usd) AS cost_usd,
        sum(prompt_tokens) AS prompt_tokens, sum(output_tokens) AS output_tokens
    FROM cost_totals GROUP BY provider, model, module, kind, outcome
""")
RUNS_ENDED: TextClause = text("""
    SELECT parent_agent_run_id IS NOT NULL, status, count(*) FROM runs
    WHERE pruned_at IS NULL AND finished_at > now() - interval '1 hour'
    GROUP BY 1, 2
""")
# The usual amount does not count the days before the first entry.
HOURS: TextClause = text("""
    SELECT day, coalesce((SELECT sum(cost_usd) FROM cost_entries
        WHERE created_at > now() - make_interval(days => day, hours => 1)
            AND created_at <= now() - make_interval(days => day)), 0)
    FROM generate_series(0, 7) AS day
    WHERE day = 0 OR now() - make_interval(days => day) > (SELECT min(created_at) FROM cost_entries)
    ORDER BY day
""")
STALLED: TextClause = text("""
    SELECT max(extract(epoch FROM clock_timestamp() - coalesce(
        (SELECT at FROM events e WHERE e.run_id = r.id ORDER BY id DESC LIMIT 1), r.created_at)))
    FROM runs r WHERE r.status = 'running' AND NOT EXISTS (
        SELECT FROM agent_runs a WHERE a.run_id = r.id AND a.status = 'pending'
            AND a.attempt > 0 AND a.ready_at > clock_timestamp()
    ) AND NOT EXISTS (
        SELECT FROM agent_runs a WHERE a.run_id = r.id AND a.status = 'waiting'
            AND EXISTS (SELECT FROM runs s WHERE s.parent_agent_run_id = a.id)
    )
""")
WORKERS: TextClause = text("""
    SELECT count(DISTINCT worker) FROM agent_runs WHERE status = 'running'
""")


async def read_cluster(connection: AsyncConnection) -> list[Sample]:
    """Read all samples that come from Postgres.

    Args:
        connection: A connection inside a transaction, so that all samples are of one moment.
    """
    found: list[Sample] = [
        *await _runs(connection),
        *await _counted(connection, AGENTS, metrics.AGENTS),
        *await _counted(connection, ADMISSIBLE, metrics.AGENTS_ADMISSIBLE),
    ]
    for row in await connection.execute(BUDGETS):
        labels = row.scope, row.subject, row.period, "soft" if row.soft else "hard"
        found += [
            (metrics.BUDGET_LIMIT, labels, float(row.limit_usd)),
            (metrics.BUDGET_SPENT, labels, float(row.spent_usd)),
            (metrics.BUDGET_HELD, labels, float(row.held_usd)),
        ]
    found += [
        (metric, (), float(await connection.scalar(statement) or 0))
        for metric, statement in (
            (metrics.RUN_BUDGET_USED, RUN_BUDGETS),
            (metrics.STALLED, STALLED),
            (metrics.WORKERS, WORKERS),
        )
    ]
    found += ledger_samples((await connection.execute(LEDGER)).mappings())
    last, *before = [float(row[1]) for row in await connection.execute(HOURS)]
    found.append((metrics.SPENT_LAST_HOUR, (), last))
    if before:
        found.append((metrics.SPENT_USUALLY, (), sum(before) / len(before)))
    return found


async def _runs(connection: AsyncConnection) -> list[Sample]:
    """Count outer runs and inner runs by state, and the runs that ended in the last hour."""
    final = [status for status in WorkflowStatus if status.is_final]
    found: list[Sample] = []
    for statement, statuses, outer, inner in (
        (RUNS, list(WorkflowStatus), metrics.RUNS, metrics.INNER_RUNS),
        (RUNS_ENDED, final, metrics.RUNS_ENDED, metrics.INNER_RUNS_ENDED),
    ):
        counts: list[Sample] = [
            (inner if is_inner else outer, (status,), float(count))
            for is_inner, status, count in await connection.execute(statement)
        ]
        for metric in (outer, inner):
            own = [sample for sample in counts if sample[0] is metric]
            found += with_zeros(own, metric, statuses)
    return found


def with_zeros(
    found: Sequence[Sample], metric: ClusterMetric, values: Iterable[str]
) -> list[Sample]:
    """Add a zero sample for each missing value of a metric's only label.

    Without the zero, the series would be missing: a graph would have a gap, and an autoscaler could
    not use the series.
    """
    there = {labels for each, labels, _ in found if each is metric}
    return [*found, *((metric, (value,), 0.0) for value in values if (value,) not in there)]


def ledger_samples(lines: Iterable[Mapping[Any, Any]]) -> list[Sample]:
    """Add up the dollars, calls and tokens of the ledger's lines, by the labels of each metric."""
    sums: dict[tuple[ClusterMetric, tuple[str, ...]], float] = defaultdict(float)
    for line in lines:
        served = line["provider"], line["model"]
        purpose = (*served, line["module"], line["kind"])
        sums[metrics.LEDGER_COST, purpose] += float(line["cost_usd"])
        sums[metrics.LEDGER_CALLS, (*purpose, line["outcome"])] += float(line["calls"])
        sums[metrics.LEDGER_TOKENS, (*served, "input")] += float(line["prompt_tokens"])
        sums[metrics.LEDGER_TOKENS, (*served, "output")] += float(line["output_tokens"])
    return [(metric, labels, amount) for (metric, labels), amount in sums.items()]


def limit_samples(buckets: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Make samples of the rate limits' live buckets.

    Args:
        buckets: The buckets that ``ClusterLimiter.snapshot`` returns.
    """
    found: list[Sample] = []
    for bucket in buckets:
        name = bucket["bucket"]
        found += [
            (metrics.LIMIT_WAITING, (name,), float(bucket["waiting"])),
            (metrics.LIMIT_PAUSED, (name,), float(bucket["paused_s"])),
            *(
                (metrics.LIMIT_LEFT, (name, tier["tier"]), tier["level"] / tier["capacity"])
                for tier in bucket["tiers"]
            ),
        ]
    return found


def circuit_samples(circuits: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Make a sample for each circuit: 0 if the circuit is closed, otherwise 1.

    Args:
        circuits: The circuits that ``LiveState.circuits`` returns.
    """
    return [
        (
            metrics.CIRCUITS_OPEN,
            (circuit["provider"], circuit["model"]),
            float(circuit["state"] != "closed"),
        )
        for circuit in circuits
    ]


async def _counted(
    connection: AsyncConnection, statement: TextClause, metric: ClusterMetric
) -> list[Sample]:
    """Read rows that consist of labels and a number."""
    rows = await connection.execute(statement)
    return [(metric, tuple(row[:-1]), float(row[-1])) for row in rows]

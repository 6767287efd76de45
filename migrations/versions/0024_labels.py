"""Labels of runs, filters of runs, budgets that count from the start, and views of agents."""

# ruff: noqa: S608 - every part of these statements is a constant of this file

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COUNTS = (
    *("calls", "prompt_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
DOLLARS = ("cost_usd", "wasted_usd", "unconfirmed_usd", "saved_usd")
# In Postgres, sum() of a bigint is a numeric; the cast makes a count a whole number again.
SUMS = ", ".join(
    (
        *(f"sum({name})::bigint AS {name}" for name in COUNTS),
        *(f"sum({name}) AS {name}" for name in DOLLARS),
    )
)
ZERO_SUMS = ", ".join(f"coalesce(c.{name}, 0) AS {name}" for name in (*COUNTS, *DOLLARS))
#: Whether a budget counts an entry of the ledger, by the budget's scope and the entry's names.
IN_SCOPE = """CASE b.scope WHEN 'all' THEN true WHEN 'workflow' THEN e.workflow = b.subject
        WHEN 'module' THEN e.module = b.subject WHEN 'tenant' THEN e.tenant = b.subject
        ELSE false END"""
# The accounts that have counted an entry when they were set, beside the accounts that the entry
# names. A correction of the entry is booked on all of them.
BUDGETS_OF_ENTRY = f"""
CREATE FUNCTION budgets_of_entry(e cost_entries) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT e.budget_ids || ARRAY(
        SELECT b.id FROM budgets b
        WHERE b.counted_to IS NOT NULL AND b.counted_to >= e.id
            AND e.created_at >= coalesce(b.period_start, '-infinity')
            AND NOT b.id = ANY(e.budget_ids) AND {IN_SCOPE}
        ORDER BY b.id)
$$
"""
BURNDOWN = """
CREATE OR REPLACE VIEW budget_burndown AS
    SELECT budget_id, scope, subject, period, period_start, hour, cost_usd,
        sum(cost_usd) OVER so_far AS spent_usd,
        limit_usd - sum(cost_usd) OVER so_far AS left_usd, limit_usd
    FROM (
        SELECT b.id AS budget_id, b.scope, b.subject, b.period, b.period_start, b.limit_usd,
            booked.hour, sum(booked.cost_usd) AS cost_usd
        FROM ({booked}) booked JOIN budgets b ON b.id = booked.budget_id
        GROUP BY b.id, booked.hour
    ) hours
    WINDOW so_far AS (PARTITION BY budget_id ORDER BY hour);
"""
NAMED = """
            SELECT named.budget_id, date_trunc('hour', e.created_at, 'UTC') AS hour, e.cost_usd
            FROM cost_entries e CROSS JOIN LATERAL unnest(e.budget_ids) AS named(budget_id)"""
COUNTED = f"""
            UNION ALL
            SELECT b.id, date_trunc('hour', e.created_at, 'UTC'), e.cost_usd
            FROM budgets b JOIN cost_entries e ON e.id <= b.counted_to
                AND e.created_at >= coalesce(b.period_start, '-infinity')
            WHERE b.counted_to IS NOT NULL AND NOT b.id = ANY(e.budget_ids) AND {IN_SCOPE}"""
VIEWS = f"""
CREATE VIEW run_labels AS
    SELECT r.id AS run_id, coalesce(r.ancestors[1], r.id) AS outer_run_id, label.key, label.value
    FROM runs r CROSS JOIN LATERAL jsonb_each_text(r.labels) AS label(key, value)
    WHERE r.labels <> '{{{{}}}}';

CREATE VIEW costs_by_label AS
    SELECT label.key, label.value, {SUMS}
    FROM run_labels label JOIN cost_lines c ON c.run_id = label.run_id
    GROUP BY label.key, label.value;

CREATE VIEW agents_by_day AS
    SELECT coalesce(a.day, c.day) AS day, coalesce(a.workflow, c.workflow) AS workflow,
        coalesce(a.agent, c.agent) AS agent, coalesce(a.runs, 0) AS runs,
        coalesce(a.completed, 0) AS completed, coalesce(a.failed, 0) AS failed,
        coalesce(a.skipped, 0) AS skipped, coalesce(a.cancelled, 0) AS cancelled, a.median_s,
        {ZERO_SUMS}
    FROM (
        SELECT (a.finished_at AT TIME ZONE 'UTC')::date AS day, w.name AS workflow,
            split_part(a.name, '[', 1) AS agent, count(*) AS runs,
            count(*) FILTER (WHERE a.status = 'completed') AS completed,
            count(*) FILTER (WHERE a.status IN ('failed', 'rate_limited', 'budget_exceeded'))
                AS failed,
            count(*) FILTER (WHERE a.status = 'skipped') AS skipped,
            count(*) FILTER (WHERE a.status = 'cancelled') AS cancelled,
            percentile_cont(0.5) WITHIN GROUP (
                ORDER BY extract(epoch FROM a.finished_at - a.started_at)::float8
            ) FILTER (WHERE a.status = 'completed' AND a.started_at IS NOT NULL) AS median_s
        FROM agent_runs a JOIN runs r ON r.id = a.run_id JOIN workflows w ON w.id = r.workflow_id
        WHERE a.finished_at IS NOT NULL AND a.item_count IS NULL
        GROUP BY 1, 2, 3
    ) a
    FULL JOIN (SELECT day, workflow, agent, {SUMS} FROM cost_lines GROUP BY day, workflow, agent) c
        ON c.day = a.day AND c.workflow = a.workflow AND c.agent = a.agent;

CREATE VIEW costs_per_output AS
    SELECT coalesce(a.workflow, c.workflow) AS workflow, coalesce(a.agent, c.agent) AS agent,
        coalesce(a.outputs, 0) AS outputs, coalesce(a.inside_usd, 0) AS inside_usd,
        (coalesce(c.cost_usd, 0) + coalesce(a.inside_usd, 0)) / nullif(a.outputs, 0)
            AS usd_per_output, {ZERO_SUMS}
    FROM (
        SELECT w.name AS workflow, split_part(a.name, '[', 1) AS agent,
            count(*) FILTER (WHERE a.status = 'completed') AS outputs,
            sum(b.spent_usd) AS inside_usd
        FROM agent_runs a JOIN runs r ON r.id = a.run_id JOIN workflows w ON w.id = r.workflow_id
            LEFT JOIN runs inside ON inside.parent_agent_run_id = a.id
            LEFT JOIN budgets b ON b.id = inside.id
        WHERE a.item_count IS NULL GROUP BY 1, 2
    ) a
    FULL JOIN (SELECT workflow, agent, {SUMS} FROM cost_lines GROUP BY workflow, agent) c
        ON c.workflow = a.workflow AND c.agent = a.agent;

CREATE VIEW costs_per_completed_run AS
    SELECT coalesce(r.workflow, c.workflow) AS workflow, coalesce(r.completed, 0) AS completed,
        c.cost_usd / nullif(r.completed, 0) AS usd_per_completed_run, {ZERO_SUMS}
    FROM (
        SELECT w.name AS workflow, count(*) FILTER (WHERE r.status = 'completed') AS completed
        FROM runs r JOIN workflows w ON w.id = r.workflow_id WHERE r.ancestors = '{{{{}}}}' GROUP BY 1
    ) r
    FULL JOIN costs_by_workflow_whole c ON c.workflow = r.workflow;

CREATE VIEW budget_forecast AS
    SELECT s.scope, s.subject, s.period, period.starts_at AS period_start,
        period.ends_at AS period_end, s.limit_usd, b.spent_usd, b.held_usd,
        s.limit_usd - b.spent_usd - b.held_usd AS left_usd, rate.last_hour_usd, rate.last_day_usd,
        {{forecasts}}
    FROM standing_budgets s
    CROSS JOIN LATERAL (
        SELECT budget_period_start(s.period, s.start_hour, s.start_day, now()) AS starts_at
    ) start
    CROSS JOIN LATERAL (
        SELECT start.starts_at, CASE s.period
            WHEN 'day' THEN (start.starts_at AT TIME ZONE 'UTC' + interval '1 day')
                AT TIME ZONE 'UTC'
            WHEN 'month' THEN (start.starts_at AT TIME ZONE 'UTC' + interval '1 month')
                AT TIME ZONE 'UTC' END AS ends_at
    ) period
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(spent_usd), 0) AS spent_usd, coalesce(sum(held_usd), 0) AS held_usd
        FROM budgets b WHERE b.scope = s.scope AND b.subject = s.subject AND b.period = s.period
            AND b.period_start IS NOT DISTINCT FROM start.starts_at
    ) b
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(e.cost_usd), 0) AS last_day_usd,
            coalesce(sum(e.cost_usd) FILTER (WHERE e.created_at >= now() - interval '1 hour'), 0)
                AS last_hour_usd
        FROM cost_entries e
        WHERE e.created_at >= now() - interval '1 day' AND {IN_SCOPE.replace("b.", "s.")}
    ) rate;
"""


def _forecast(rate: str, name: str) -> str:
    """Return the columns that a forecast has for one rate, in dollars per hour."""
    # A time beyond ten years is no forecast, and might be beyond the times of Postgres.
    return f"""
        CASE WHEN b.spent_usd >= s.limit_usd THEN now()
            WHEN {rate} > 0 AND (s.limit_usd - b.spent_usd) / {rate} < 87600
            THEN now() + make_interval(
                secs => ((s.limit_usd - b.spent_usd) / {rate} * 3600)::float8) END
            AS exhausted_at_{name},
        CASE WHEN period.ends_at IS NOT NULL THEN b.spent_usd
            + round({rate} * (extract(epoch FROM period.ends_at - now()) / 3600)::numeric, 10) END
            AS period_usd_{name}"""


FORECASTS = ",".join(
    (_forecast("rate.last_hour_usd", "by_hour"), _forecast("(rate.last_day_usd / 24)", "by_day"))
)
NAMES = (
    *("budget_forecast", "costs_per_completed_run", "costs_per_output", "agents_by_day"),
    *("costs_by_label", "run_labels"),
)


def upgrade() -> None:
    op.add_column(
        "runs", sa.Column("labels", JSONB(), server_default=sa.text("'{}'"), nullable=False)
    )
    outer = "parent_agent_run_id IS NULL"
    op.create_index(
        "ix_runs_workflow_id", "runs", ["workflow_id", "id"], postgresql_where=sa.text(outer)
    )
    op.create_index(
        "ix_runs_tenant",
        "runs",
        ["tenant", "id"],
        postgresql_where=sa.text(f"tenant IS NOT NULL AND {outer}"),
    )
    op.create_index(
        "ix_runs_labels",
        "runs",
        ["labels"],
        postgresql_using="gin",
        postgresql_where=sa.text("labels <> '{}'"),
    )
    op.add_column("budgets", sa.Column("counted_to", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_budgets_counted_to",
        "budgets",
        ["counted_to"],
        postgresql_where=sa.text("counted_to IS NOT NULL"),
    )
    op.execute(sa.text(BUDGETS_OF_ENTRY))
    op.execute(sa.text(BURNDOWN.format(booked=NAMED + COUNTED)))
    op.execute(sa.text(VIEWS.format(forecasts=FORECASTS)))


def downgrade() -> None:
    for name in NAMES:
        op.execute(f"DROP VIEW {name}")
    op.execute(sa.text(BURNDOWN.format(booked=NAMED)))
    op.execute("DROP FUNCTION budgets_of_entry(cost_entries)")
    op.drop_index("ix_budgets_counted_to", table_name="budgets")
    op.drop_column("budgets", "counted_to")
    for name in ("ix_runs_labels", "ix_runs_tenant", "ix_runs_workflow_id"):
        op.drop_index(name, table_name="runs")
    op.drop_column("runs", "labels")

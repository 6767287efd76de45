"""The ledger for SQL: savings, links from corrections to entries, daily totals, and views."""

# ruff: noqa: S608 - every part of these statements is a constant of this file

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

USD = sa.Numeric(precision=20, scale=10)

# The amounts that one line of the ledger adds to every report. A correction of an estimate also
# subtracts the estimated call, because the actual entry counts this call again. A correction after
# a change of prices names no entry, so such a correction changes no number of calls.
MEASURES = """
        CASE WHEN e.kind <> 'correction' THEN 1
            WHEN e.corrects IS NOT NULL THEN -1 ELSE 0 END AS calls,
        e.input_tokens::bigint + e.cached_tokens + e.cache_write_tokens + e.cache_write_1h_tokens
            AS prompt_tokens,
        e.cached_tokens::bigint AS cached_tokens,
        e.cache_write_tokens::bigint + e.cache_write_1h_tokens AS cache_write_tokens,
        e.output_tokens::bigint AS output_tokens,
        e.reasoning_tokens::bigint AS reasoning_tokens,
        e.cost_usd AS cost_usd,
        CASE WHEN e.outcome <> 'ok' THEN e.cost_usd ELSE 0 END AS wasted_usd,
        CASE WHEN 'unconfirmed' IN (e.kind, e.corrects) THEN e.cost_usd ELSE 0 END
            AS unconfirmed_usd,
        e.saved_usd AS saved_usd
"""
KEY = "day, tenant, workflow, version, module, provider, model, kind, outcome"
SUMMED = (
    "calls",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "wasted_usd",
    "unconfirmed_usd",
    "saved_usd",
)
COUNTS = SUMMED[:6]
# In Postgres, sum() of a bigint is a numeric; the cast makes a count a whole number again.
SUMS = ", ".join(
    f"sum({name})::bigint AS {name}" if name in COUNTS else f"sum({name}) AS {name}"
    for name in SUMMED
)
DIGEST = f"sha256(convert_to(ROW({KEY})::text, 'UTF8'))"
LINES = f"""
    SELECT (e.created_at AT TIME ZONE 'UTC')::date AS day, e.tenant, e.workflow, e.version,
        e.module, e.provider, e.model, e.kind, e.outcome, {MEASURES}
"""

# Each transaction adds to a shard that no other transaction has, so that no transaction waits for
# the row of another transaction. If all shards are taken, a transaction waits for a shard. A
# transaction that has a shard never waits for another shard, so no deadlock is possible. The key is
# a digest, because the names may be longer than an index entry can be.
DAILY_TOTALS = f"""
INSERT INTO cost_totals (shard, digest, {KEY}, {", ".join(SUMMED)})
SELECT 0, {DIGEST}, {KEY}, {SUMS}
FROM ({LINES} FROM cost_entries e) lines GROUP BY {KEY};

CREATE FUNCTION add_to_cost_totals() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    shards CONSTANT integer := 32;
    mine integer := 0;
BEGIN
    WHILE mine < shards AND NOT pg_try_advisory_xact_lock(7465002, mine) LOOP
        mine := mine + 1;
    END LOOP;
    IF mine = shards THEN
        mine := pg_backend_pid() % shards;
        PERFORM pg_advisory_xact_lock(7465002, mine);
    END IF;
    INSERT INTO cost_totals AS t (shard, digest, {KEY}, {", ".join(SUMMED)})
    SELECT mine, {DIGEST}, {KEY}, {SUMS}
    FROM ({LINES} FROM added e) lines GROUP BY {KEY}
    ON CONFLICT (shard, digest) DO UPDATE SET
        {", ".join(f"{name} = t.{name} + excluded.{name}" for name in SUMMED)};
    RETURN NULL;
END $$;
CREATE TRIGGER cost_entries_totals AFTER INSERT ON cost_entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_to_cost_totals();
"""


def _by(name: str, columns: str) -> str:
    return f"""
CREATE VIEW costs_by_{name} AS
    SELECT {columns}, {SUMS} FROM costs_daily GROUP BY {columns};
"""


VIEWS = f"""
CREATE VIEW cost_lines AS
    SELECT e.id, e.created_at, e.call_id, e.run_id, e.agent_run_id, e.attempt, e.agent,
        e.corrects, e.price_version, lines.*
    FROM cost_entries e CROSS JOIN LATERAL ({LINES}) lines;

CREATE VIEW costs_daily AS
    SELECT {KEY}, {SUMS} FROM cost_totals GROUP BY {KEY};

{_by("day", "day")}
{_by("workflow", "workflow")}
{_by("version", "workflow, version")}
{_by("module", "module")}
{_by("provider", "provider")}
{_by("model", "provider, model")}
{_by("tenant", "tenant")}
{_by("kind", "kind, outcome")}

CREATE VIEW costs_by_agent AS
    SELECT workflow, agent, module, {SUMS} FROM cost_lines GROUP BY workflow, agent, module;

CREATE VIEW costs_by_run AS
    SELECT run_id, tenant, workflow, version, min(created_at) AS first_at,
        max(created_at) AS last_at, {SUMS}
    FROM cost_lines GROUP BY run_id, tenant, workflow, version;

CREATE VIEW cost_waste AS
    SELECT l.day, l.tenant, l.workflow, l.module, l.agent, l.provider, l.model,
        CASE WHEN 'unconfirmed' IN (l.kind, l.corrects) THEN 'unconfirmed'
            WHEN l.outcome <> 'ok' THEN 'failed' ELSE 'retried' END AS cause,
        l.outcome, sum(l.calls)::bigint AS calls,
        sum(l.prompt_tokens + l.output_tokens)::bigint AS tokens, sum(l.cost_usd) AS wasted_usd
    FROM cost_lines l
    LEFT JOIN attempts t ON t.agent_run_id = l.agent_run_id AND t.number = l.attempt
    WHERE 'unconfirmed' IN (l.kind, l.corrects) OR l.outcome <> 'ok'
        OR t.outcome NOT IN ('running', 'completed')
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9;

CREATE VIEW cost_cache_savings AS
    SELECT day, provider, model, sum(calls) FILTER (WHERE kind = 'cached')::bigint
            AS calls_answered_from_cache,
        sum(prompt_tokens)::bigint AS prompt_tokens, sum(cached_tokens)::bigint AS cached_tokens,
        sum(cache_write_tokens)::bigint AS cache_write_tokens,
        round(100 * sum(cached_tokens) / nullif(sum(prompt_tokens), 0), 2) AS cached_percent,
        sum(saved_usd) AS saved_usd
    FROM costs_daily GROUP BY day, provider, model;

CREATE VIEW budget_burndown AS
    SELECT budget_id, scope, subject, period, period_start, hour, cost_usd,
        sum(cost_usd) OVER so_far AS spent_usd,
        limit_usd - sum(cost_usd) OVER so_far AS left_usd, limit_usd
    FROM (
        SELECT b.id AS budget_id, b.scope, b.subject, b.period, b.period_start, b.limit_usd,
            date_trunc('hour', e.created_at, 'UTC') AS hour, sum(e.cost_usd) AS cost_usd
        FROM cost_entries e CROSS JOIN LATERAL unnest(e.budget_ids) AS booked(budget_id)
        JOIN budgets b ON b.id = booked.budget_id
        GROUP BY b.id, hour
    ) hours
    WINDOW so_far AS (PARTITION BY budget_id ORDER BY hour);
"""
NAMES = (
    *("budget_burndown", "cost_cache_savings", "cost_waste", "costs_by_run", "costs_by_agent"),
    *(f"costs_by_{name}" for name in ("kind", "tenant", "model", "provider", "module")),
    *("costs_by_version", "costs_by_workflow", "costs_by_day", "costs_daily", "cost_lines"),
)


def upgrade() -> None:
    op.add_column(
        "cost_entries",
        sa.Column("saved_usd", USD, server_default=sa.text("0"), nullable=False),
    )
    op.add_column("cost_entries", sa.Column("corrects", sa.Text(), nullable=True))
    op.create_table(
        "cost_totals",
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        *(sa.Column(name, USD, nullable=False) for name in SUMMED[len(COUNTS) :]),
        sa.PrimaryKeyConstraint("shard", "digest", name=op.f("pk_cost_totals")),
        postgresql_with={"fillfactor": "50"},
    )
    op.execute(sa.text(DAILY_TOTALS))
    op.execute(sa.text(VIEWS))


def downgrade() -> None:
    for name in NAMES:
        op.execute(f"DROP VIEW {name}")
    op.execute("DROP TRIGGER cost_entries_totals ON cost_entries")
    op.execute("DROP FUNCTION add_to_cost_totals()")
    op.drop_table("cost_totals")
    op.drop_column("cost_entries", "corrects")
    op.drop_column("cost_entries", "saved_usd")

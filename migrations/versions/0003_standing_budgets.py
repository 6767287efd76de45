"""Standing budgets, the queue of holds that wait, thresholds, and the tenants of runs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The function returns the start, in UTC, of the period that contains a moment; the result is null
# for budgets without periods. A day begins at start_hour, and a month begins on start_day at
# start_hour.
PERIOD_START = """
CREATE FUNCTION budget_period_start(period text, start_hour int, start_day int, at timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN period <> 'none' THEN
        (date_trunc(period, at AT TIME ZONE 'UTC' - shift) + shift) AT TIME ZONE 'UTC'
    END FROM (SELECT make_interval(hours => start_hour,
        days => CASE period WHEN 'month' THEN start_day - 1 ELSE 0 END) AS shift) s
$$
"""


def upgrade() -> None:
    op.execute(PERIOD_START)
    op.create_table(
        "standing_budgets",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("limit_usd", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column("soft", sa.Boolean(), nullable=False),
        sa.Column("thresholds", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("start_hour", sa.Integer(), nullable=False),
        sa.Column("start_day", sa.Integer(), nullable=False),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("limit_usd >= 0", name=op.f("ck_standing_budgets_limit_usd")),
        sa.CheckConstraint(
            "period IN ('none', 'day', 'month')", name=op.f("ck_standing_budgets_period")
        ),
        sa.CheckConstraint(
            "scope IN ('workflow', 'module', 'tenant', 'all')",
            name=op.f("ck_standing_budgets_scope"),
        ),
        sa.CheckConstraint(
            "start_hour BETWEEN 0 AND 23 AND start_day BETWEEN 1 AND 28",
            name=op.f("ck_standing_budgets_start"),
        ),
        sa.PrimaryKeyConstraint("scope", "subject", "period", name=op.f("pk_standing_budgets")),
    )
    op.create_table(
        "hold_queue",
        sa.Column("agent_run_id", sa.Uuid(), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("ticket", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("budget_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("amount_usd", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column(
            "since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["agent_run_id"],
            ["agent_runs.id"],
            name=op.f("fk_hold_queue_agent_run_id_agent_runs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("agent_run_id", name=op.f("pk_hold_queue")),
    )
    op.add_column(
        "budgets",
        sa.Column(
            "thresholds",
            sa.ARRAY(sa.Integer()),
            server_default=sa.text("'{50,80,100}'"),
            nullable=False,
        ),
    )
    op.add_column(
        "budgets", sa.Column("reached", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "budgets",
        sa.Column("awaited", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("runs", sa.Column("tenant", sa.Text(), nullable=True))
    op.add_column("cost_entries", sa.Column("tenant", sa.Text(), nullable=True))
    op.add_column("cost_entries", sa.Column("version", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("cost_entries", "version")
    op.drop_column("cost_entries", "tenant")
    op.drop_column("runs", "tenant")
    op.drop_column("budgets", "awaited")
    op.drop_column("budgets", "reached")
    op.drop_column("budgets", "thresholds")
    op.drop_table("hold_queue")
    op.drop_table("standing_budgets")
    op.execute("DROP FUNCTION budget_period_start")

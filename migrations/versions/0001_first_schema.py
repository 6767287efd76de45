"""The first schema: workflows, runs, agent runs, attempts, budgets, holds, the ledger, events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: book a correction instead of % on %',
        TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER cost_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON cost_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), server_default="none", nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("soft", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("closed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("limit_usd", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column(
            "spent_usd",
            sa.Numeric(precision=20, scale=10),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "held_usd",
            sa.Numeric(precision=20, scale=10),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "overdrawn_usd",
            sa.Numeric(precision=20, scale=10),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.CheckConstraint("period IN ('none', 'day', 'month')", name=op.f("ck_budgets_period")),
        sa.CheckConstraint(
            "scope IN ('run', 'workflow', 'module', 'tenant', 'all')", name=op.f("ck_budgets_scope")
        ),
        sa.CheckConstraint(
            "held_usd >= 0 AND overdrawn_usd >= 0", name=op.f("ck_budgets_not_negative")
        ),
        sa.CheckConstraint(
            "soft OR spent_usd + held_usd <= limit_usd + overdrawn_usd",
            name=op.f("ck_budgets_within_limit"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sa.UniqueConstraint(
            "scope",
            "subject",
            "period",
            "period_start",
            name=op.f("uq_budgets_scope_subject_period_period_start"),
            postgresql_nulls_not_distinct=True,
        ),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "cost_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("agent_run_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_answered", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cache_write_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "cache_write_1h_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column("output_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reasoning_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("usage", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("price_version", sa.Text(), nullable=True),
        sa.Column("budget_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("cost_usd", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "kind IN ('actual', 'estimated', 'unconfirmed', 'correction', 'cached')",
            name=op.f("ck_cost_entries_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cost_entries")),
    )
    op.create_index("ix_cost_entries_created_at", "cost_entries", ["created_at"])
    op.create_index("ix_cost_entries_run_id", "cost_entries", ["run_id"])
    op.create_index(
        "uq_cost_entries_call_id_kind",
        "cost_entries",
        ["call_id", "kind"],
        unique=True,
        postgresql_where="kind <> 'correction'",
    )
    op.create_table(
        "workflows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("definition", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflows")),
        sa.UniqueConstraint("name", "content_hash", name=op.f("uq_workflows_name_content_hash")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_workflows_name_version")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("input", postgresql.JSONB(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("level", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("level_count", sa.Integer(), nullable=False),
        sa.Column("max_parallel_agents", sa.Integer(), nullable=False),
        sa.Column("allow_partial_completion", sa.Boolean(), nullable=False),
        sa.Column("timeout_s", sa.Double(), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_as", sa.Text(), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'partially_completed', 'failed', 'cancelled')",
            name=op.f("ck_runs_status"),
        ),
        sa.CheckConstraint("stop_as IN ('cancelled', 'failed')", name=op.f("ck_runs_stop_as")),
        sa.CheckConstraint("max_parallel_agents >= 1", name=op.f("ck_runs_max_parallel_agents")),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name=op.f("fk_runs_workflow_id_workflows")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(
        "ix_runs_pending",
        "runs",
        [sa.literal_column("priority DESC"), "id"],
        postgresql_where="status = 'pending'",
    )
    op.create_index("ix_runs_running", "runs", ["id"], postgresql_where="status = 'running'")
    op.create_table(
        "agent_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("dependencies", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("reads", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("accept_missing_inputs", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "ready_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("retries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("recoveries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("output", postgresql.JSONB(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("limit_usd", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column(
            "spent_usd",
            sa.Numeric(precision=20, scale=10),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "held_usd",
            sa.Numeric(precision=20, scale=10),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "overdrawn_usd",
            sa.Numeric(precision=20, scale=10),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(status = 'running') = (worker IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("ck_agent_runs_running_has_lease"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'skipped', 'rate_limited', 'budget_exceeded')",
            name=op.f("ck_agent_runs_status"),
        ),
        sa.CheckConstraint(
            "held_usd >= 0 AND overdrawn_usd >= 0", name=op.f("ck_agent_runs_not_negative")
        ),
        sa.CheckConstraint(
            "spent_usd + held_usd <= limit_usd + overdrawn_usd",
            name=op.f("ck_agent_runs_within_limit"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_agent_runs_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_runs")),
        sa.UniqueConstraint("run_id", "name", name=op.f("uq_agent_runs_run_id_name")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_agent_runs_pending",
        "agent_runs",
        ["run_id", "level", "provider", sa.literal_column("priority DESC"), "position"],
        postgresql_where="status = 'pending'",
    )
    op.create_index(
        "ix_agent_runs_running",
        "agent_runs",
        ["run_id", "level"],
        postgresql_where="status = 'running'",
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("agent_run_id", sa.Uuid(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_events_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_run_id_id", "events", ["run_id", "id"])
    op.create_table(
        "attempts",
        sa.Column("agent_run_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), server_default="running", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('running', 'completed', 'failed', 'cancelled', 'handed_back', 'lost')",
            name=op.f("ck_attempts_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["agent_run_id"],
            ["agent_runs.id"],
            name=op.f("fk_attempts_agent_run_id_agent_runs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("agent_run_id", "number", name=op.f("pk_attempts")),
    )
    op.create_table(
        "holds",
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("agent_run_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("budget_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("amount_usd", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("amount_usd >= 0", name=op.f("ck_holds_amount")),
        sa.ForeignKeyConstraint(
            ["agent_run_id"], ["agent_runs.id"], name=op.f("fk_holds_agent_run_id_agent_runs")
        ),
        sa.PrimaryKeyConstraint("call_id", name=op.f("pk_holds")),
    )
    op.create_index("ix_holds_agent_run_id", "holds", ["agent_run_id"])
    op.execute(APPEND_ONLY)


def downgrade() -> None:

    op.drop_index("ix_holds_agent_run_id", table_name="holds")
    op.drop_table("holds")
    op.drop_table("attempts")
    op.drop_index("ix_events_run_id_id", table_name="events")
    op.drop_table("events")
    op.drop_index(
        "ix_agent_runs_running", table_name="agent_runs", postgresql_where="status = 'running'"
    )
    op.drop_index(
        "ix_agent_runs_pending", table_name="agent_runs", postgresql_where="status = 'pending'"
    )
    op.drop_table("agent_runs")
    op.drop_index("ix_runs_running", table_name="runs", postgresql_where="status = 'running'")
    op.drop_index("ix_runs_pending", table_name="runs", postgresql_where="status = 'pending'")
    op.drop_table("runs")
    op.drop_table("workflows")
    op.drop_index(
        "uq_cost_entries_call_id_kind",
        table_name="cost_entries",
        postgresql_where="kind <> 'correction'",
    )
    op.drop_index("ix_cost_entries_run_id", table_name="cost_entries")
    op.drop_index("ix_cost_entries_created_at", table_name="cost_entries")
    op.drop_table("cost_entries")
    op.drop_table("budgets")
    op.execute("DROP FUNCTION refuse_change()")

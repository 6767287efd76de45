"""Agent runs that wait for other rows: for the elements of a for_each, or for a sub-workflow's run."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OPEN = ("pending", "running", "waiting")
ENDED = ("completed", "failed", "cancelled", "skipped", "rate_limited", "budget_exceeded")


def _set_statuses(*statuses: str) -> None:
    op.drop_constraint(op.f("ck_agent_runs_status"), "agent_runs", type_="check")
    listed = ", ".join(repr(status) for status in statuses)
    op.create_check_constraint(op.f("ck_agent_runs_status"), "agent_runs", f"status IN ({listed})")


def upgrade() -> None:
    _set_statuses(*OPEN, *ENDED)
    op.add_column("agent_runs", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.add_column("agent_runs", sa.Column("item_index", sa.Integer(), nullable=True))
    op.add_column("agent_runs", sa.Column("item", postgresql.JSONB(), nullable=True))
    op.add_column("agent_runs", sa.Column("item_count", sa.Integer(), nullable=True))
    op.create_foreign_key(
        op.f("fk_agent_runs_parent_id_agent_runs"),
        "agent_runs",
        "agent_runs",
        ["parent_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_check_constraint(
        op.f("ck_agent_runs_item"), "agent_runs", "(parent_id IS NULL) = (item_index IS NULL)"
    )
    op.create_check_constraint(
        op.f("ck_agent_runs_items_have_no_items"),
        "agent_runs",
        "parent_id IS NULL OR item_count IS NULL",
    )
    op.create_index(
        "uq_agent_runs_parent_id_item_index",
        "agent_runs",
        ["parent_id", "item_index"],
        unique=True,
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index(
        "ix_agent_runs_waiting",
        "agent_runs",
        ["run_id", "level"],
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.add_column("runs", sa.Column("parent_agent_run_id", sa.Uuid(), nullable=True))
    op.add_column(
        "runs",
        sa.Column(
            "ancestors",
            postgresql.ARRAY(sa.Uuid()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    op.create_check_constraint(
        op.f("ck_runs_ancestors"), "runs", "(parent_agent_run_id IS NULL) = (ancestors = '{}')"
    )
    op.create_index(
        "uq_runs_parent_agent_run_id",
        "runs",
        ["parent_agent_run_id"],
        unique=True,
        postgresql_where=sa.text("parent_agent_run_id IS NOT NULL"),
    )
    op.create_index(
        "ix_runs_ancestors",
        "runs",
        ["ancestors"],
        postgresql_using="gin",
        postgresql_where=sa.text("ancestors <> '{}'"),
    )


def downgrade() -> None:
    for name in ("ix_runs_ancestors", "uq_runs_parent_agent_run_id"):
        op.drop_index(name, table_name="runs")
    op.drop_constraint(op.f("ck_runs_ancestors"), "runs", type_="check")
    for name in ("ancestors", "parent_agent_run_id"):
        op.drop_column("runs", name)
    # The older schema has no items. An agent that waits for its items starts again without items.
    op.execute(
        "DELETE FROM holds h USING agent_runs a WHERE a.id = h.agent_run_id"
        " AND a.parent_id IS NOT NULL"
    )
    op.execute("DELETE FROM agent_runs WHERE parent_id IS NOT NULL")
    op.execute("UPDATE agent_runs SET status = 'pending' WHERE status = 'waiting'")
    for name in ("ix_agent_runs_waiting", "uq_agent_runs_parent_id_item_index"):
        op.drop_index(name, table_name="agent_runs")
    for name in ("items_have_no_items", "item"):
        op.drop_constraint(op.f(f"ck_agent_runs_{name}"), "agent_runs", type_="check")
    for name in ("item_count", "item", "item_index", "parent_id"):
        op.drop_column("agent_runs", name)
    _set_statuses("pending", "running", *ENDED)

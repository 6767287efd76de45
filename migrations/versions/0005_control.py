"""Paused runs, keys of runs, reruns, and runs whose payload was deleted."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OPEN = ("pending", "running", "paused")
ENDED = ("completed", "partially_completed", "failed", "cancelled")
CHECKS = {
    "finished": "(finished_at IS NULL) = (status IN ('pending', 'running', 'paused'))",
    "stopping": "stop_as IS NULL OR status NOT IN ('pending', 'paused')",
    "paused": "status <> 'paused' OR deadline_at IS NULL",
    "pruned": "pruned_at IS NULL OR finished_at IS NOT NULL",
    "key": "(key IS NULL) = (input_hash IS NULL)",
    "rerun": "(rerun_of IS NULL) = (rerun_from IS NULL)",
}


def _set_statuses(*statuses: str) -> None:
    op.drop_constraint(op.f("ck_runs_status"), "runs", type_="check")
    listed = ", ".join(repr(status) for status in statuses)
    op.create_check_constraint(op.f("ck_runs_status"), "runs", f"status IN ({listed})")


def upgrade() -> None:
    _set_statuses(*OPEN, *ENDED)
    op.add_column("runs", sa.Column("time_left_s", sa.Float(), nullable=True))
    op.add_column("runs", sa.Column("key", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("input_hash", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("rerun_of", sa.Uuid(), nullable=True))
    op.add_column("runs", sa.Column("rerun_from", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("pruned_at", sa.DateTime(timezone=True), nullable=True))
    for name, condition in CHECKS.items():
        op.create_check_constraint(op.f(f"ck_runs_{name}"), "runs", condition)
    op.create_index(
        "uq_runs_key",
        "runs",
        ["key"],
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    op.create_index(
        "ix_runs_rerun_of",
        "runs",
        ["rerun_of"],
        postgresql_where=sa.text("rerun_of IS NOT NULL"),
    )
    op.create_index(
        "ix_runs_prunable",
        "runs",
        ["finished_at"],
        postgresql_where=sa.text("pruned_at IS NULL"),
    )
    op.add_column(
        "budgets",
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("budgets", "paused")
    for name in ("ix_runs_prunable", "ix_runs_rerun_of", "uq_runs_key"):
        op.drop_index(name, table_name="runs")
    for name in CHECKS:
        op.drop_constraint(op.f(f"ck_runs_{name}"), "runs", type_="check")
    # The older schema has no pause, so paused runs continue.
    op.execute("UPDATE runs SET status = 'pending' WHERE status = 'paused'")
    _set_statuses("pending", "running", *ENDED)
    for name in ("pruned_at", "rerun_from", "rerun_of", "input_hash", "key", "time_left_s"):
        op.drop_column("runs", name)

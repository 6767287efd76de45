"""Limits that may change while the cluster runs, and the share of the limits that a run gets."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "rate_limits",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("limits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("provider", "model", name=op.f("pk_rate_limits")),
    )
    op.add_column(
        "runs", sa.Column("weight", sa.Float(), server_default=sa.text("1"), nullable=False)
    )
    op.create_check_constraint(op.f("ck_runs_weight"), "runs", "weight > 0")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_runs_weight"), "runs", type_="check")
    op.drop_column("runs", "weight")
    op.drop_table("rate_limits")

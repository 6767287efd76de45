"""The rounds of a run: what a retry repairs, and which results rest on inputs that have changed."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OUTCOMES = "outcome IN ('running', 'completed', 'failed', 'cancelled', 'handed_back', 'lost'"


def upgrade() -> None:
    op.add_column(
        "runs", sa.Column("round", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    for name in ("round", "changed_in"):
        op.add_column(
            "agent_runs", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
    op.add_column("agent_runs", sa.Column("seen", sa.Text(), nullable=True))
    op.add_column("agent_runs", sa.Column("kept", JSONB(), nullable=True))
    op.drop_constraint(op.f("ck_attempts_outcome"), "attempts", type_="check")
    op.create_check_constraint(op.f("ck_attempts_outcome"), "attempts", f"{OUTCOMES}, 'replaced')")


def downgrade() -> None:
    op.execute("UPDATE attempts SET outcome = 'completed' WHERE outcome = 'replaced'")
    op.drop_constraint(op.f("ck_attempts_outcome"), "attempts", type_="check")
    op.create_check_constraint(op.f("ck_attempts_outcome"), "attempts", f"{OUTCOMES})")
    for name in ("kept", "seen", "changed_in", "round"):
        op.drop_column("agent_runs", name)
    op.drop_column("runs", "round")

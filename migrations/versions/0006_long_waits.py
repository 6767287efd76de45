"""Agents that are handed back for a long wait, and the time at which each agent is ready again."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("agent_runs", sa.Column("waits_for", sa.Text(), nullable=True))
    op.create_index(
        "ix_agent_runs_given_back",
        "agent_runs",
        ["ready_at"],
        postgresql_where=sa.text("status = 'pending' AND attempt > 0"),
    )


def downgrade() -> None:
    op.drop_index("ix_agent_runs_given_back", table_name="agent_runs")
    op.drop_column("agent_runs", "waits_for")

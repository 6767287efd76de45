"""Runs are found by the last eight digits of their ids, which are random."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_runs_short_id", "runs", [sa.text('"right"(id::text, 8)')])


def downgrade() -> None:
    op.drop_index("ix_runs_short_id", table_name="runs")

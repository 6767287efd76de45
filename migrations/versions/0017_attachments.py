"""The hash of an agent run's attachments, so that each attempt sends the same bytes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("agent_runs", sa.Column("attached", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("agent_runs", "attached")

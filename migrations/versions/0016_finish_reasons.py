"""The reasons why the answers of calls and of attempts ended."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("cost_entries", sa.Column("finish_reason", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("finish_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "finish_reason")
    op.drop_column("cost_entries", "finish_reason")

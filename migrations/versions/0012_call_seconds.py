"""The duration of calls."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("cost_entries", sa.Column("seconds", sa.REAL(), nullable=True))


def downgrade() -> None:
    op.drop_column("cost_entries", "seconds")

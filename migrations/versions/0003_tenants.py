"""The columns by which the ledger tells tenants and versions apart."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("tenant", sa.Text(), nullable=True))
    op.add_column("cost_entries", sa.Column("tenant", sa.Text(), nullable=True))
    op.add_column("cost_entries", sa.Column("version", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("cost_entries", "version")
    op.drop_column("cost_entries", "tenant")
    op.drop_column("runs", "tenant")

"""The longest time for which the containers of a call's programs may be billed."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    seconds = sa.Column(
        "container_seconds", sa.Integer(), server_default=sa.text("0"), nullable=False
    )
    op.add_column("cost_entries", seconds)


def downgrade() -> None:
    op.drop_column("cost_entries", "container_seconds")

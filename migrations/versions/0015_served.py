"""The facts of a call that change its price: the service, the searches and the citations."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COUNTS = ("citation_tokens", "web_searches")


def upgrade() -> None:
    for name in COUNTS:
        count = sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
        op.add_column("cost_entries", count)
    op.add_column("cost_entries", sa.Column("served", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("cost_entries", "served")
    for name in reversed(COUNTS):
        op.drop_column("cost_entries", name)

"""The time to the first token of a streamed answer, stored with the attempt."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("first_token_s", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "first_token_s")

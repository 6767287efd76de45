"""An index that finds the corrections of a call without a scan of the whole ledger."""

from collections.abc import Sequence

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index(
        "ix_cost_entries_corrections",
        "cost_entries",
        ["call_id"],
        postgresql_where="kind = 'correction'",
    )


def downgrade() -> None:
    op.drop_index("ix_cost_entries_corrections", "cost_entries")

"""The attempt to which a hold belongs, and the token estimates that were made before a call."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

PROMPT = """
    input_tokens::bigint + cached_tokens + cache_write_tokens + cache_write_1h_tokens
"""
VIEW = f"""
CREATE VIEW token_estimates AS
    SELECT (created_at AT TIME ZONE 'UTC')::date AS day, provider, model,
        count(*) AS calls, sum(prompt_tokens)::bigint AS prompt_tokens,
        sum(expected_tokens)::bigint AS expected_tokens,
        sum(abs(expected_tokens - prompt_tokens))::bigint AS error_tokens,
        sum(bound_tokens)::bigint AS bound_tokens,
        max(round(prompt_tokens::numeric / bound_tokens, 4)) AS most_of_bound,
        count(*) FILTER (WHERE prompt_tokens > bound_tokens) AS above_bound
    FROM (
        SELECT created_at, provider, model, expected_tokens, bound_tokens,
            {PROMPT} AS prompt_tokens
        FROM cost_entries WHERE kind = 'actual' AND bound_tokens > 0
    ) counted
    WHERE prompt_tokens > 0
    GROUP BY 1, 2, 3;
"""  # noqa: S608  constants of this file


def upgrade() -> None:
    op.add_column("holds", sa.Column("provider", sa.Text(), nullable=True))
    op.add_column("holds", sa.Column("model", sa.Text(), nullable=True))
    op.add_column("cost_entries", sa.Column("expected_tokens", sa.Integer(), nullable=True))
    op.add_column("cost_entries", sa.Column("bound_tokens", sa.Integer(), nullable=True))
    op.execute(sa.text(VIEW))


def downgrade() -> None:
    op.execute("DROP VIEW token_estimates")
    op.drop_column("cost_entries", "bound_tokens")
    op.drop_column("cost_entries", "expected_tokens")
    op.drop_column("holds", "model")
    op.drop_column("holds", "provider")

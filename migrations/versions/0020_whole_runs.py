"""Views of whole runs: the calls of a run together with the calls of its sub-workflows."""

# ruff: noqa: S608 - every part of these statements is a constant of this file

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COUNTS = (
    *("calls", "prompt_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
DOLLARS = ("cost_usd", "wasted_usd", "unconfirmed_usd", "saved_usd")
# In Postgres, sum() of a bigint is a numeric; the cast makes a count a whole number again.
SUMS = ", ".join(
    (
        *(f"sum({name})::bigint AS {name}" for name in COUNTS),
        *(f"sum({name}) AS {name}" for name in DOLLARS),
    )
)
# Each view has one part for runs that stand alone or outside, and one part for inner runs. Each
# part has a condition that an index supports. Therefore a query about one outer run reads only the
# rows of this run. A call outside any run is stored in the ledger as a run of its own.
VIEWS = f"""
CREATE VIEW run_tree AS
    SELECT id AS outer_run_id, id AS run_id, CAST(NULL AS uuid) AS part_of, 0 AS depth
    FROM runs WHERE ancestors = '{{}}'
    UNION ALL
    SELECT ancestors[1], id, ancestors[cardinality(ancestors)], cardinality(ancestors)
    FROM runs WHERE ancestors <> '{{}}';

CREATE VIEW cost_lines_whole AS
    SELECT l.run_id AS outer_run_id, l.workflow AS outer_workflow, l.version AS outer_version, l.*
    FROM cost_lines l
    WHERE NOT EXISTS (SELECT FROM runs r WHERE r.id = l.run_id AND r.ancestors <> '{{}}')
    UNION ALL
    SELECT r.ancestors[1], w.name, w.version, l.*
    FROM runs r
    JOIN runs outermost ON outermost.id = r.ancestors[1]
    JOIN workflows w ON w.id = outermost.workflow_id
    JOIN cost_lines l ON l.run_id = r.id
    WHERE r.ancestors <> '{{}}';

CREATE VIEW costs_by_run_whole AS
    SELECT outer_run_id AS run_id, max(tenant) AS tenant, max(outer_workflow) AS workflow,
        max(outer_version) AS version, min(created_at) AS first_at, max(created_at) AS last_at,
        {SUMS}
    FROM cost_lines_whole GROUP BY outer_run_id;

CREATE VIEW costs_by_workflow_whole AS
    SELECT workflow, count(*) AS runs, {SUMS} FROM costs_by_run_whole GROUP BY workflow;
"""
NAMES = ("costs_by_workflow_whole", "costs_by_run_whole", "cost_lines_whole", "run_tree")


def upgrade() -> None:
    op.create_index(
        "ix_runs_outermost",
        "runs",
        [sa.text("(ancestors[1])")],
        postgresql_where=sa.text("ancestors <> '{}'"),
    )
    op.execute(sa.text(VIEWS))


def downgrade() -> None:
    for name in NAMES:
        op.execute(f"DROP VIEW {name}")
    op.drop_index("ix_runs_outermost", table_name="runs")

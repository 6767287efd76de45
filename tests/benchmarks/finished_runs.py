"""Tables full of finished runs: copies of a real one, each with ids of its own."""

from tests.support.stack import Stack

CHUNK = 20_000
#: The columns that differ between copies, by table, in the order of foreign keys.
OWN_COLUMNS = {
    "runs": {"id": "c.run_id"},
    "budgets": {"id": "c.run_id", "subject": "c.run_id::text"},
    "agent_runs": {"id": "c.agent_run_id", "run_id": "c.run_id"},
    "attempts": {"agent_run_id": "c.agent_run_id"},
    "cost_entries": {
        "call_id": "gen_random_uuid()",
        "run_id": "c.run_id",
        "agent_run_id": "c.agent_run_id",
        "budget_ids": "ARRAY[c.run_id]",
    },
    "events": {
        "run_id": "c.run_id",
        "agent_run_id": "CASE WHEN t.agent_run_id IS NOT NULL THEN c.agent_run_id END",
    },
}
#: Conditions for the rows of the run that is copied, by table.
OF_THE_RUN = {"runs": "id", "budgets": "id", "attempts": "agent_run_id"}
COPIES = "SELECT gen_random_uuid() AS run_id, gen_random_uuid() AS agent_run_id"
MODEL = """
    SELECT r.id AS run_id, min(a.id::text)::uuid AS agent_run_id
    FROM runs r JOIN agent_runs a ON a.run_id = r.id
    WHERE r.status = 'completed' GROUP BY r.id ORDER BY count(*) LIMIT 1
"""


def fill(stack: Stack, runs: int) -> None:
    """Add finished runs, each with one agent and all rows of such a run.

    Args:
        stack: Stack whose database has completed runs already; the smallest one is copied.
        runs: Number of copies.
    """
    (model,) = stack.sql(MODEL)
    for begin in range(0, runs, CHUNK):
        count = min(CHUNK, runs - begin)
        statements = [
            "SET statement_timeout = 0",
            f"CREATE TEMP TABLE copies AS {COPIES} FROM generate_series(1, {count})",
            *(_copy(stack, name, model) for name in OWN_COLUMNS),
        ]
        stack.sql(";".join(statements))
    stack.sql("ANALYZE")


def _copy(stack: Stack, name: str, model: dict[str, object]) -> str:
    own = OWN_COLUMNS[name]
    columns = [
        row["column_name"]
        for row in stack.sql(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND table_name = %s AND is_identity = 'NO' AND is_generated = 'NEVER'",
            name,
        )
    ]
    values = ", ".join(own.get(column, f't."{column}"') for column in columns)
    quoted = ", ".join(f'"{column}"' for column in columns)
    key = OF_THE_RUN.get(name, "run_id")
    wanted = model["agent_run_id" if key == "agent_run_id" else "run_id"]
    one = f"AND t.id = '{model['agent_run_id']}'" if name == "agent_runs" else ""
    return (
        f"INSERT INTO {name} ({quoted}) SELECT {values} FROM {name} t, copies c "
        f"WHERE t.{key} = '{wanted}' {one}"
    )

"""A measurement counts only if the work was done: every agent, every request, every token."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.contenders import BenchmarkFailed
from tests.benchmarks.workloads import Workload
from tests.support.ledgers import assert_ledgers_agree
from tests.support.stack import Stack

Row = Mapping[str, Any]


def verify_requests(workload: Workload, served: Sequence[Row]) -> tuple[int, int]:
    """Check that the simulator served one request per agent, and nothing else.

    Returns:
        Input and output tokens: the same for every contender, because the prompts are the same.

    Raises:
        BenchmarkFailed: If it did not.
    """
    by_status = Counter(record["status"] for record in served)
    if by_status != {200: workload.agents}:
        raise BenchmarkFailed(
            f"{workload.name}: {workload.agents} requests were to be answered with 200, the "
            f"simulator has by status {dict(by_status)}"
        )
    return (
        sum(record["input_tokens"] for record in served),
        sum(record["output_tokens"] for record in served),
    )


def verify_runs(
    workload: Workload, stack: Stack, run_ids: Sequence[str], served: Sequence[Row]
) -> None:
    """Check that every run completed with all its outputs, and that the ledger is exact.

    Raises:
        BenchmarkFailed: If anything is missing or extra.
    """
    ids = list(run_ids)
    wanted = {
        "runs completed": workload.runs,
        "agents completed with an output": workload.agents,
        "attempts": workload.agents,
        "cost entries of kind actual": workload.agents,
        "cost entries": workload.agents,
        "events of agents": 2 * workload.agents,
        "holds left": 0,
        "runs whose budget differs from the ledger": 0,
        "an error": None,
    }
    (found,) = stack.sql(FACTS, *[ids] * FACTS.count("%s"))
    if found != wanted:
        raise BenchmarkFailed(f"{workload.name}: {found} where {wanted} was to be expected")
    entries = stack.sql("SELECT * FROM cost_entries WHERE run_id = ANY(%s::uuid[])", ids)
    try:
        assert_ledgers_agree(entries, served)
    except AssertionError as error:
        raise BenchmarkFailed(
            f"{workload.name}: the ledger differs from the simulator's, request for request"
        ) from error


FACTS = """
    SELECT
        (SELECT count(*) FROM runs WHERE id = ANY(%s::uuid[]) AND status = 'completed')
            AS "runs completed",
        (SELECT count(*) FROM agent_runs WHERE run_id = ANY(%s::uuid[]) AND status = 'completed'
            AND length(output #>> '{}') > 0) AS "agents completed with an output",
        (SELECT count(*) FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id
            WHERE a.run_id = ANY(%s::uuid[])) AS "attempts",
        (SELECT count(*) FROM cost_entries WHERE run_id = ANY(%s::uuid[]) AND kind = 'actual')
            AS "cost entries of kind actual",
        (SELECT count(*) FROM cost_entries WHERE run_id = ANY(%s::uuid[])) AS "cost entries",
        (SELECT count(*) FROM events WHERE run_id = ANY(%s::uuid[]) AND agent_run_id IS NOT NULL)
            AS "events of agents",
        (SELECT count(*) FROM holds) AS "holds left",
        (SELECT count(*) FROM budgets b WHERE id = ANY(%s::uuid[]) AND (held_usd <> 0
            OR spent_usd <> (SELECT sum(cost_usd) FROM cost_entries WHERE run_id = b.id)))
            AS "runs whose budget differs from the ledger",
        (SELECT min(error_class || ': ' || error) FROM agent_runs
            WHERE run_id = ANY(%s::uuid[]) AND error_class <> 'UpstreamFailed') AS "an error"
"""

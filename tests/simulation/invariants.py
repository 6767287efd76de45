"""The rules that a simulation must keep at every step, and when it has come to rest."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from app.storage.records import Kind
from tests.simulation.people import FINAL, People
from tests.simulation.provider import Provider, Served
from tests.simulation.repairs import broken_repairs
from tests.simulation.workflows import CACHE_TTL_S
from tests.support.ledgers import DIFFERENT_TOTALS

#: Errors with which an agent may end; any other error is a defect.
KNOWN_ERRORS = {
    "Overloaded",
    "ServerFailure",
    "RateLimited",
    "BadRequest",
    "ConnectionFailed",
    "AgentTimeout",
    "BudgetExceeded",
    "RecoveriesExhausted",
    "RunStopped",
    "UpstreamFailed",
    "WorkerLost",
    "ItemsFailed",
    "SubWorkflowFailed",
    "SubWorkflowPartial",
    "CircuitOpen",
}
GUESS: Kind = "unconfirmed"
OK = 200
#: Seconds within which an answer is stored, and within which its use is booked.
SLACK_S = 60.0

# The statement returns no row if all is right.
AT_EVERY_STEP = """
    SELECT 'more than max_parallel_agents at a time' AS what, r.id::text AS who
    FROM runs r JOIN agent_runs a ON a.run_id = r.id AND a.status = 'running'
    GROUP BY r.id HAVING count(*) > r.max_parallel_agents
    UNION ALL
    SELECT 'started before its level', a.id::text
    FROM agent_runs a JOIN runs r ON r.id = a.run_id AND a.status = 'running'
    WHERE a.level > r.level OR EXISTS (
        SELECT FROM agent_runs d WHERE d.run_id = a.run_id AND d.level < a.level
            AND d.status IN ('pending', 'running', 'waiting'))
    UNION ALL
    SELECT 'budget overspent', id::text FROM budgets
    WHERE NOT soft AND (overdrawn_usd > 0 OR spent_usd + held_usd > limit_usd)
    UNION ALL
    SELECT 'held is not the sum of the holds', b.id::text FROM budgets b
    WHERE b.held_usd <> coalesce(
        (SELECT sum(amount_usd) FROM holds h WHERE b.id = ANY(h.budget_ids)), 0)
    UNION ALL
    SELECT 'money is held for an attempt that is over', a.id::text
    FROM holds h JOIN agent_runs a ON a.id = h.agent_run_id
    WHERE a.status <> 'running' OR a.attempt <> h.attempt
    UNION ALL
    SELECT 'a call was held for before the one before it was settled', agent_run_id::text
    FROM holds GROUP BY agent_run_id HAVING count(*) > 1
    UNION ALL
    SELECT 'an agent that waits holds money or is not pending', id::text FROM agent_runs
    WHERE waits_for IS NOT NULL AND (status <> 'pending' OR held_usd <> 0)
    UNION ALL
    SELECT 'a sub-workflow goes on without its agent', r.id::text
    FROM runs r JOIN agent_runs a ON a.id = r.parent_agent_run_id
    WHERE r.finished_at IS NULL AND a.status <> 'waiting'
    UNION ALL
    SELECT 'an agent waits for a sub-workflow that is not there', a.id::text
    FROM agent_runs a LEFT JOIN runs r ON r.parent_agent_run_id = a.id AND r.finished_at IS NULL
    WHERE a.status = 'waiting' AND a.item_count IS NULL AND r.id IS NULL
    UNION ALL
    SELECT 'a run has ended with work in progress', r.id::text FROM runs r
    JOIN agent_runs a ON a.run_id = r.id AND a.status IN ('pending', 'running', 'waiting')
    WHERE r.finished_at IS NOT NULL AND r.status IN ('completed', 'partially_completed', 'failed',
        'cancelled')
"""
AT_REST = {
    "a hold was never settled": "SELECT call_id FROM holds",
    "an agent still waits for money": """
        SELECT a.name FROM hold_queue q JOIN agent_runs a ON a.id = q.agent_run_id
        WHERE a.status = 'running' AND a.attempt = q.attempt
        """,
    "spent is not the sum of the entries": """
        SELECT b.id, b.spent_usd FROM budgets b WHERE b.spent_usd <> coalesce((
            SELECT sum(cost_usd) FROM cost_entries e WHERE b.id = ANY(e.budget_ids)), 0)
        UNION ALL
        SELECT a.id, a.spent_usd FROM agent_runs a WHERE a.spent_usd <> coalesce((
            SELECT sum(cost_usd) FROM cost_entries e WHERE e.agent_run_id = a.id), 0)
        """,
    "an agent's account is not settled": "SELECT id FROM agent_runs WHERE held_usd <> 0",
    "the totals differ from the ledger": DIFFERENT_TOTALS,
    "not exactly one accepted outcome": """
        SELECT a.name, a.status, count(t) FILTER (WHERE t.outcome = 'completed') AS accepted
        FROM agent_runs a LEFT JOIN attempts t ON t.agent_run_id = a.id GROUP BY a.id
        HAVING count(t) FILTER (WHERE t.outcome = 'completed')
            <> (CASE WHEN a.status = 'completed' THEN 1 ELSE 0 END)
        """,
    "an attempt never ended": "SELECT * FROM attempts WHERE outcome = 'running'",
    "an attempt is missing": """
        SELECT a.name FROM agent_runs a WHERE a.attempt
            <> (SELECT count(*) FROM attempts t WHERE t.agent_run_id = a.id)
        """,
    "a dead attempt changed an agent run": """
        SELECT name, old_status, status, old_attempt, attempt, at FROM simulation.steps
        WHERE (old_status = 'completed' AND status NOT IN ('waiting', 'pending', 'skipped'))
            OR attempt < old_attempt
            OR (attempt > old_attempt AND NOT (old_status = 'pending' AND status = 'running'))
            OR (status = 'running' AND attempt = old_attempt)
            OR (old_status NOT IN ('running', 'waiting')
                AND status NOT IN ('running', 'pending', 'waiting', 'cancelled', 'skipped'))
            OR (output IS DISTINCT FROM old_output AND status <> 'completed'
                AND NOT (output IS NULL AND status IN ('waiting', 'pending', 'skipped')))
        """,
    "not every element has one item": """
        SELECT p.name, p.item_count, array_agg(i.item_index) FROM agent_runs p
        LEFT JOIN agent_runs i ON i.parent_id = p.id GROUP BY p.id
        HAVING p.item_count IS NULL AND p.status = 'completed' AND count(i) > 0
            OR count(i) FILTER (WHERE i.item_index < p.item_count) <> p.item_count
            OR p.item_count > max(i.item_index) + 1
        """,
    "a list is not what its items have answered": """
        SELECT p.name, p.output FROM agent_runs p JOIN LATERAL (
            SELECT jsonb_agg(CASE WHEN i.status = 'completed' THEN i.output END
                ORDER BY i.item_index) AS outputs
            FROM agent_runs i WHERE i.parent_id = p.id AND i.item_index < p.item_count
        ) items ON items.outputs IS NOT NULL
        WHERE p.status = 'completed' AND p.output <> items.outputs
        """,
    "a sub-workflow is not what its agents have answered": """
        SELECT p.name, p.output FROM agent_runs p
        JOIN runs r ON r.parent_agent_run_id = p.id
        JOIN LATERAL (
            SELECT jsonb_object_agg(i.name, CASE WHEN i.status = 'completed' THEN i.output END)
                AS outputs
            FROM agent_runs i WHERE i.run_id = r.id AND i.parent_id IS NULL
        ) inner_ones ON true
        WHERE p.status = 'completed' AND p.output <> inner_ones.outputs
        """,
    "a hold was placed although its budget was closed or paused": """
        SELECT call_id FROM simulation.placed WHERE barred
        """,
    "an agent started before the results it reads": """
        SELECT a.name FROM agent_runs a JOIN attempts t ON t.agent_run_id = a.id
        JOIN agent_runs d ON d.run_id = a.run_id AND d.name = ANY(a.dependencies)
        WHERE NOT a.accept_missing_inputs
            -- A retry may have completed the dependency once more since.
            AND t.started_at < coalesce((
                SELECT min(e.at) FROM events e WHERE e.agent_run_id = d.id
                    AND e.type = 'agent_completed'), 'infinity')
        """,
    "an agent has a result for an input that a retry has changed": """
        SELECT a.name FROM agent_runs a JOIN runs r ON r.id = a.run_id
            AND r.status IN ('completed', 'partially_completed')
        JOIN agent_runs d ON d.run_id = a.run_id AND d.name = ANY(a.dependencies)
        WHERE a.status = 'completed' AND d.status = 'completed' AND d.changed_in > a.round
            AND a.parent_id IS NULL  -- items with unchanged elements stay as they are
        """,
}
# The attempt whose answer is the result. An attempt that keeps the result of an earlier attempt
# makes no call.
ACCEPTED = """
    SELECT t.agent_run_id, max(t.number) AS attempt
    FROM attempts t WHERE t.outcome IN ('completed', 'replaced') AND NOT EXISTS (
        SELECT FROM events e WHERE e.agent_run_id = t.agent_run_id AND e.attempt = t.number
            AND e.type = 'agent_completed' AND e.data ->> 'kept' = 'true')
    GROUP BY t.agent_run_id
"""


def broken_now(inspector: psycopg.Connection[Any]) -> list[str]:
    """Find the errors in the rows that are committed now."""
    return [f"{what}: {who}" for what, who in inspector.execute(AT_EVERY_STEP).fetchall()]


def broken_at_rest(
    inspector: psycopg.Connection[Any], provider: Provider, people: People
) -> list[str]:
    """Find the errors in a simulation that has come to rest."""
    found = broken_now(inspector)
    for what, question in AT_REST.items():
        rows = inspector.execute(question).fetchmany(3)
        found += [f"{what}: {row}" for row in rows]
    for story in people.stories:
        status = people.status(story)
        if status not in FINAL:
            found.append(f"run{story.number} has not ended: it is {status or 'not there'}")
        people.look(story)
        found += story.broken
    with inspector.cursor(row_factory=dict_row) as cursor:
        agents = cursor.execute("SELECT * FROM agent_runs").fetchall()
        entries = cursor.execute("SELECT * FROM cost_entries ORDER BY created_at, id").fetchall()
        accepted = cursor.execute(ACCEPTED).fetchall()
    found += _unknown_errors(agents)
    found += _wrong_entries(entries, provider)
    found += _wrong_results(agents, entries, provider, accepted)
    found += broken_repairs(inspector, provider)
    return found + people.cluster.circuit_watch.broken


def _unknown_errors(agents: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{agent['name']} has failed with {agent['error_class']}: {agent['error']}"
        for agent in agents
        if agent["error_class"] is not None and agent["error_class"] not in KNOWN_ERRORS
    ]


def _wrong_entries(entries: Sequence[dict[str, Any]], provider: Provider) -> list[str]:
    """Find calls without exactly one entry, with the cost of the call or its worst case."""
    by_call: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        by_call[entry["call_id"]].append(entry)
    found = [
        f"a call of {served.agent} has no entry"
        for call_id, served in provider.served.items()
        if call_id not in by_call
    ]
    for call_id, lines in by_call.items():
        kinds = sorted(line["kind"] for line in lines)
        total = sum((line["cost_usd"] for line in lines), Decimal(0))
        served_ = provider.served.get(call_id)
        if kinds == ["cached"]:
            if total or served_ is not None or lines[0]["saved_usd"] <= 0:
                found.append(f"an answer from the cache costs {lines[0]['agent']} {total}")
        elif kinds not in (["actual"], [GUESS], ["actual", "correction", GUESS]):
            found.append(f"a call of {lines[0]['agent']} has the entries {kinds}")
        elif "actual" in kinds:
            if served_ is None or total != served_.cost_usd:
                found.append(f"a call of {lines[0]['agent']} is booked at {total}, not {served_}")
        elif served_ is not None and total != served_.hold.amount_usd:
            found.append(f"an unconfirmed call of {served_.agent} is not booked at its worst case")
    return found


def _wrong_results(
    agents: Sequence[dict[str, Any]],
    entries: Sequence[dict[str, Any]],
    provider: Provider,
    accepted: Sequence[dict[str, Any]],
) -> list[str]:
    """Find results that are not their attempt's last answer.

    A result from the cache must be a whole, recent answer of the same model to an equal request.
    """
    found = []
    attempt_of = {row["agent_run_id"]: row["attempt"] for row in accepted}
    shared = {(e["agent_run_id"], e["attempt"]): e for e in entries if e["kind"] == "cached"}
    whole = {served.answer: served for served in provider.served.values() if served.status == OK}
    answers: dict[Any, list[Served]] = defaultdict(list)
    for served in provider.served.values():
        answers[served.hold.agent_run_id, served.hold.attempt].append(served)
    # The results of lists and sub-workflows are put together in Postgres.
    for agent in (agent for agent in agents if agent["status"] == "completed"):
        attempt = attempt_of.get(agent["id"], agent["attempt"])
        calls = answers[agent["id"], attempt]
        entry = shared.get((agent["id"], attempt))
        if isinstance(agent["output"], (list, dict)) and not calls and entry is None:
            continue
        if entry is not None:
            source = whole.get(agent["output"])
            asked = provider.asked_by(entry["agent"])
            if (
                source is None
                or source.prompt != asked
                or (source.hold.provider, source.hold.model) != (entry["provider"], entry["model"])
                or entry["created_at"].timestamp() - source.answered_at > CACHE_TTL_S + SLACK_S
            ):
                found.append(
                    f"what {agent['name']} got from the cache is no answer to it: "
                    f"{agent['output']} of {source}, asked {asked!r}"
                )
            continue
        if not calls or calls[-1].answer != agent["output"]:
            found.append(f"the result of {agent['name']} is not its last answer")
    return found

"""A comparison of the history with the states of runs, agents, attempts and calls.

Each state and its event are written in one transaction. If a state has no event, or if an event
occurs twice, a statement is wrong, or a transaction was split.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.domain.events import CATALOGUE

Sql = Callable[..., Sequence[Mapping[str, Any]]]

KEPT = "r.pruned_at IS NULL"
WRONG = {
    "runs that were made without a word, or with two": f"""
        SELECT r.id, count(e.id) AS told FROM runs r
        LEFT JOIN events e ON e.run_id = r.id AND e.type = 'run_created'
        WHERE {KEPT} GROUP BY r.id HAVING count(e.id) <> 1
    """,
    "runs whose admission was not told": f"""
        SELECT r.id, r.status FROM runs r WHERE {KEPT} AND r.started_at IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM events e WHERE e.run_id = r.id AND e.type = 'run_started'
            )
    """,
    "runs whose end is not the last that was told of their state": f"""
        SELECT r.id, r.status, told.type FROM runs r LEFT JOIN LATERAL (
            SELECT e.type FROM events e WHERE e.run_id = r.id AND starts_with(e.type, 'run_')
                AND e.type <> 'run_rerun' ORDER BY e.id DESC LIMIT 1
        ) told ON true
        WHERE {KEPT} AND r.finished_at IS NOT NULL AND told.type IS DISTINCT FROM 'run_' || r.status
    """,
    "attempts whose start was not told once": f"""
        SELECT t.agent_run_id, t.number, count(e.id) AS told FROM attempts t
        JOIN agent_runs a ON a.id = t.agent_run_id JOIN runs r ON r.id = a.run_id
        LEFT JOIN events e ON e.agent_run_id = t.agent_run_id AND e.attempt = t.number
            AND e.type = 'agent_started'
        WHERE {KEPT} GROUP BY t.agent_run_id, t.number HAVING count(e.id) <> 1
    """,
    "attempts whose end was not told": f"""
        SELECT t.agent_run_id, t.number, t.outcome FROM attempts t
        JOIN agent_runs a ON a.id = t.agent_run_id JOIN runs r ON r.id = a.run_id
        WHERE {KEPT} AND t.outcome <> 'running' AND NOT EXISTS (
            SELECT FROM events e WHERE e.agent_run_id = t.agent_run_id
                AND (e.attempt = t.number OR e.attempt IS NULL)
                AND e.type = ANY(CASE t.outcome
                    WHEN 'completed' THEN ARRAY['agent_completed', 'agent_skipped']
                    WHEN 'handed_back' THEN ARRAY['agent_handed_back', 'agent_waiting']
                    WHEN 'cancelled' THEN ARRAY['agent_cancelled']
                    WHEN 'replaced' THEN ARRAY['agent_completed', 'agent_skipped', 'agent_failed',
                        'agent_cancelled']
                    WHEN 'lost' THEN ARRAY['agent_recovered', 'agent_failed']
                    ELSE ARRAY['agent_failed', 'agent_retrying', 'agent_rate_limited',
                        'agent_budget_exceeded'] END)
        )
    """,
    "agents whose end was not told": f"""
        SELECT a.id, a.name, a.status FROM agent_runs a JOIN runs r ON r.id = a.run_id
        WHERE {KEPT} AND a.status NOT IN ('pending', 'running', 'waiting') AND NOT EXISTS (
            SELECT FROM events e WHERE e.agent_run_id = a.id AND e.type = 'agent_' || a.status
        ) AND NOT (r.rerun_of IS NOT NULL AND a.attempt = 0)
    """,
    "entries of attempts that nobody has started": f"""
        SELECT c.call_id, c.attempt FROM cost_entries c JOIN runs r ON r.id = c.run_id
        WHERE {KEPT} AND c.agent_run_id IS NOT NULL AND c.attempt > 0 AND NOT EXISTS (
            SELECT FROM events e WHERE e.agent_run_id = c.agent_run_id
                AND e.attempt = c.attempt AND e.type = 'agent_started'
        )
    """,
    "tools whose end was not told": f"""
        SELECT t.turn_id, t.position, t.state FROM tool_calls t
        JOIN agent_runs a ON a.id = t.agent_run_id JOIN runs r ON r.id = a.run_id
        WHERE {KEPT} AND t.state <> 'running' AND NOT EXISTS (
            SELECT FROM events e WHERE e.agent_run_id = t.agent_run_id
                AND e.data ->> 'tool' = t.tool AND e.type = CASE t.state
                    WHEN 'completed' THEN 'tool_finished' ELSE 'tool_' || t.state END
        )
    """,
}
#: All checks are one statement, because they run after every test of the stack.
ALL_WRONG = " UNION ALL ".join(
    f"SELECT '{what}' AS what, to_jsonb(found)::text AS row FROM ({query}) found"
    for what, query in WRONG.items()
)
FACTS = "SELECT DISTINCT type, fact FROM events, jsonb_object_keys(data || '{\"\": 0}') AS fact"


def assert_history_is_complete(sql: Sql) -> None:
    """Check that every state has its event, and that every event is in the catalogue.

    Args:
        sql: Runs a statement and returns the rows as dicts.
    """
    assert list(sql(ALL_WRONG)) == []
    told = [(row["type"], row["fact"]) for row in sql(FACTS)]
    assert {type_ for type_, _ in told} <= CATALOGUE.keys()
    strange = [(type_, fact) for type_, fact in told if fact and fact not in CATALOGUE[type_].facts]
    assert strange == []

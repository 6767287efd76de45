"""Runs again what a retry repairs: failed and partial agents, and what rests on changed inputs.

Each retry begins a new round of its run. Agents that failed run again at once. A completed agent
runs again only after one of its inputs has changed in the round. So an agent whose inputs stay as
they are keeps its result, and nothing is paid twice. The levels of the run carry the changes on:
when a level is done, ``reopen_outdated`` looks for the agents of later levels that rest on an older
output. An agent that runs again keeps its last accepted output in ``kept`` until the next one is
accepted. If the new output is equal to it, nothing has changed for the agents that read it.
"""

# ruff: noqa: S608 - every part of these statements is a constant of this file

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: The agent run ends without an output of its own.
_FAILED = "status IN ('failed', 'rate_limited', 'budget_exceeded', 'cancelled')"
#: A retry repairs the agent run ``{0}``.
_BROKEN = f"({{0}}.{_FAILED} OR {{0}}.error_class IS NOT DISTINCT FROM 'SubWorkflowPartial')"
#: The agent run ``a`` is over, or waits for items, and rests on an output that has changed since.
_OUTDATED = """
    a.parent_id IS NULL AND a.status NOT IN ('pending', 'running')
        AND (a.status <> 'waiting' OR a.item_count IS NOT NULL)
        AND EXISTS (
            SELECT FROM agent_runs d WHERE d.run_id = a.run_id AND d.parent_id IS NULL
                AND d.name = ANY(a.dependencies || a.reads) AND d.changed_in > a.round
                AND d.status IN ('completed', 'skipped')
        )
"""
# The numbers of the attempts go on, so late writes of an old attempt are refused. Attachments are
# read anew, because a wrong file may have been replaced.
_ANEW = """
    retries = 0, recoveries = 0, error = NULL, error_class = NULL, output = NULL, attached = NULL,
    ready_at = clock_timestamp(), finished_at = NULL, waits_for = NULL,
    kept = CASE WHEN a.status IN ('completed', 'skipped')
        THEN jsonb_build_object('output', a.output) ELSE a.kept END
"""
# Conversations with tools begin anew, because a failed conversation would otherwise continue from
# the point of its failure. An accepted attempt of an agent that runs again is replaced.
_AGAIN = """
    anew AS (
        UPDATE turns SET set_aside = true FROM again WHERE turns.agent_run_id = again.id
            AND NOT turns.set_aside
    ), replaced AS (
        UPDATE attempts t SET outcome = 'replaced' FROM again
        WHERE again.status = 'pending' AND t.agent_run_id = again.id AND t.outcome = 'completed'
    )
"""

FIND_TARGET: TextClause = text(f"""
    SELECT {_BROKEN.format("a")} OR EXISTS (
            SELECT FROM agent_runs i WHERE i.parent_id = a.id AND {_BROKEN.format("i")}
        ) AS broken
    FROM agent_runs a WHERE a.run_id = :id AND a.name = :agent
""")
# The transaction has locked the run before this statement. A list waits for the items that run
# again; only the list's own attempt continues. If the list itself rests on an older output, the
# list is read again first, and its items are compared then (REEXPAND). A list without an item_count
# has not been read, or has to be read again. With :owner and :item, only this agent or item is
# repaired; an agent that an interrupted repair has left outdated runs in any case.
RETRY: TextClause = text(f"""
    WITH found AS MATERIALIZED (
        SELECT a.id, a.item_count IS NOT NULL AND NOT ({_OUTDATED}) AS waits
        FROM agent_runs a WHERE a.run_id = :id AND a.parent_id IS NULL
            AND (({_BROKEN.format("a")} OR coalesce((
                    SELECT true FROM agent_runs i
                    WHERE i.parent_id = a.id AND {_BROKEN.format("i")} LIMIT 1
                ), false)) AND CAST(:owner AS text) IN ('', a.name)
                OR {_OUTDATED})
        ORDER BY a.id FOR NO KEY UPDATE
    ), items AS MATERIALIZED (
        SELECT i.id, found.waits FROM agent_runs i JOIN found ON found.id = i.parent_id
        WHERE {_BROKEN.format("i")} AND CAST(:item AS text) IN ('', i.name)
        ORDER BY i.id FOR NO KEY UPDATE OF i
    ), unread AS (
        UPDATE agent_runs SET seen = NULL FROM items
        WHERE agent_runs.id = items.id AND NOT items.waits
    ), again AS (
        UPDATE agent_runs a SET {_ANEW},
            status = CASE WHEN f.waits THEN 'waiting' ELSE 'pending' END,
            started_at = CASE WHEN f.waits THEN a.started_at END,
            item_count = CASE WHEN f.waits THEN a.item_count END
        FROM (
            SELECT id, waits FROM found UNION ALL SELECT id, false FROM items WHERE waits
        ) f
        WHERE a.id = f.id RETURNING a.level, a.id, a.attempt, a.status
    ), {_AGAIN.strip()}, reattempted AS (
        UPDATE attempts t SET outcome = 'running', error = NULL, error_class = NULL,
            finished_at = NULL
        FROM again WHERE again.status = 'waiting'
            AND t.agent_run_id = again.id AND t.number = again.attempt
    ), reopened AS (
        UPDATE runs SET status = 'pending', stop_as = NULL, stop_reason = NULL, error = NULL,
            finished_at = NULL, deadline_at = NULL, time_left_s = NULL, round = round + 1,
            level = (SELECT min(level) FROM again)
        WHERE id = :id AND EXISTS (SELECT FROM again) RETURNING id
    ), opened AS (
        UPDATE budgets b SET closed = false, paused = false, limit_usd = given.limit_usd,
            overdrawn_usd = greatest(0, b.spent_usd + b.held_usd - given.limit_usd),
            reached = coalesce((
                SELECT max(percent) FROM unnest(b.thresholds) AS percent
                WHERE b.spent_usd * 100 >= given.limit_usd * percent
            ), 0)
        FROM reopened, (SELECT CAST(:limit_usd AS numeric) AS limit_usd) given
        WHERE b.id = reopened.id
    )
    INSERT INTO events (run_id, type, data)
    SELECT id, 'run_retried', jsonb_strip_nulls(jsonb_build_object(
        'agents', (SELECT count(*) FROM again), 'cost_budget', CAST(:limit_usd AS text),
        'agent', nullif(coalesce(nullif(:item, ''), :owner), '')))
    FROM reopened RETURNING run_id
""")
# The items of an outdated list must not start before the list has been read again.
REOPEN_OUTDATED: TextClause = text(f"""
    WITH outdated AS MATERIALIZED (
        SELECT a.id FROM agent_runs a
        WHERE a.run_id = :id AND a.level > :level AND {_OUTDATED}
        ORDER BY a.id FOR NO KEY UPDATE
    ), again AS (
        UPDATE agent_runs a SET {_ANEW}, status = 'pending', started_at = NULL, item_count = NULL
        FROM outdated WHERE a.id = outdated.id
        RETURNING a.run_id, a.id, a.name, a.attempt, a.status
    ), {_AGAIN.strip()}, ended AS (
        UPDATE attempts t SET outcome = 'replaced', finished_at = clock_timestamp()
        FROM again WHERE t.agent_run_id = again.id AND t.outcome = 'running'
    ), held_back AS (
        UPDATE agent_runs i SET status = 'cancelled', finished_at = clock_timestamp(),
            error_class = 'RunStopped', error = 'the list has changed, and is read again first'
        FROM outdated WHERE i.parent_id = outdated.id AND i.status = 'pending'
        RETURNING i.run_id, i.id, i.name, i.error
    ), noted AS (
        INSERT INTO events (run_id, agent_run_id, type, data)
        SELECT run_id, id, 'agent_cancelled', jsonb_build_object('agent', name, 'error', error)
        FROM held_back
    )
    INSERT INTO events (run_id, agent_run_id, type, data)
    SELECT run_id, id, 'agent_outdated', jsonb_build_object('agent', name) FROM again
    RETURNING agent_run_id
""")
# The input of a sub-workflow has changed. All its agents look at their inputs again, and those with
# the same inputs as before keep their results.
RESTART: TextClause = text(f"""
    WITH again AS (
        UPDATE agent_runs a SET {_ANEW}, status = 'pending', started_at = NULL, item_count = NULL
        WHERE a.run_id = :id AND a.parent_id IS NULL
        RETURNING a.id, a.status
    ), {_AGAIN.strip()}, reopened AS (
        UPDATE runs SET status = 'pending', stop_as = NULL, stop_reason = NULL, error = NULL,
            finished_at = NULL, deadline_at = NULL, time_left_s = NULL, round = round + 1,
            level = 0, input = CAST(:input AS jsonb)
        WHERE id = :id RETURNING id
    ), opened AS (
        UPDATE budgets b SET closed = false, paused = false FROM reopened
        WHERE b.id = reopened.id RETURNING b.id, b.limit_usd
    )
    INSERT INTO events (run_id, type, data)
    SELECT id, 'run_retried', jsonb_build_object(
        'agents', (SELECT count(*) FROM again), 'cost_budget', CAST(limit_usd AS text))
    FROM opened
""")
# An element with a completed item, and with the same values to read as before, keeps its item. The
# item of any other element runs again. Items beyond the end of the list are skipped.
REEXPAND: TextClause = text(f"""
    WITH given AS (
        SELECT e.place - 1 AS index, e.item, s.seen
        FROM jsonb_array_elements(CAST(:items AS jsonb)) WITH ORDINALITY AS e(item, place)
        JOIN unnest(CAST(:seen AS text[])) WITH ORDINALITY AS s(seen, place) USING (place)
    ), again AS (
        UPDATE agent_runs a SET {_ANEW}, status = 'pending', started_at = NULL, item = given.item,
            reads = CAST(:reads AS text[])
        FROM given WHERE a.parent_id = :id AND a.item_index = given.index
            AND NOT (a.status = 'completed' AND a.seen IS NOT DISTINCT FROM given.seen)
        RETURNING a.id, a.status
    ), gone AS (
        UPDATE agent_runs a SET status = 'skipped', output = NULL, seen = NULL, kept = NULL,
            error = format('the list has only %s elements now', CAST(:count AS int)),
            error_class = 'ItemGone', finished_at = clock_timestamp()
        WHERE a.parent_id = :id AND a.item_index >= :count
            AND a.error_class IS DISTINCT FROM 'ItemGone'
        RETURNING a.run_id, a.id, a.name, a.error, a.error_class
    ), {_AGAIN.strip()}, dropped AS (
        UPDATE attempts t SET outcome = 'replaced' FROM gone
        WHERE t.agent_run_id = gone.id AND t.outcome = 'completed'
    )
    INSERT INTO events (run_id, agent_run_id, type, data)
    SELECT run_id, id, 'agent_skipped', jsonb_build_object(
        'agent', name, 'error', error, 'error_class', error_class)
    FROM gone
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The only agent or item that a retry repairs; both names are empty if all are repaired.

    Attributes:
        owner: Name of the agent, or of the agent that the item belongs to.
        item: Name of the item, such as ``handled[20]``; empty if the whole agent is meant.
    """

    owner: str = ""
    item: str = ""


async def reopen_broken(
    connection: AsyncConnection, run_id: UUID, *, limit_usd: Decimal, target: Target
) -> bool:
    """Begin a new round of an ended run with what failed, was cancelled or is partial.

    Args:
        connection: Inside a transaction that has locked the run.
        run_id: The run.
        limit_usd: The limit of the run's budget from now on.
        target: The only agent or item to repair; every field is empty if all are repaired.

    Returns:
        Whether at least one agent runs again.
    """
    values = {"id": run_id, "limit_usd": str(limit_usd)}
    values |= {"owner": target.owner, "item": target.item}
    return await connection.scalar(RETRY, values) is not None


async def reopen_outdated(connection: AsyncConnection, run_id: UUID, level: int) -> bool:
    """Make the agents of later levels pending again whose inputs have changed in this round.

    Args:
        connection: Inside a transaction that has locked the run.
        run_id: The run.
        level: The level that is done.

    Returns:
        Whether there is such an agent.
    """
    found = await connection.execute(REOPEN_OUTDATED, {"id": run_id, "level": level})
    return found.first() is not None


async def restart(connection: AsyncConnection, run_id: UUID, input_: str) -> None:
    """Begin a new round of a sub-workflow's ended run with another input, which is JSON text."""
    await connection.execute(RESTART, {"id": run_id, "input": input_})


async def is_broken(connection: AsyncConnection, run_id: UUID, agent: str) -> bool | None:
    """Return whether a retry would repair an agent or item; None if the run has none such."""
    found: Any = await connection.scalar(FIND_TARGET, {"id": run_id, "agent": agent})
    return None if found is None else bool(found)

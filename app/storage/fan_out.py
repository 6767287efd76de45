"""Writes the agent runs of a for_each's elements, and collects the outputs at the end.

An agent with a for_each is claimed like any other agent. The agent's attempt records the list. The
transaction that records the list also writes one agent run for each element, on the same level. The
agent then waits for its elements without a lease and without a place. When no agent run of the
level is open any more, the step that advances the run collects the outputs. Therefore the record of
an element costs no more than the record of any other agent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.agent import CRITICAL_PRIORITY
from app.storage.repair import REEXPAND
from app.storage.session import dumps

# The transaction has locked the agent run, because APPLY_RECORDS has just updated this agent run.
# If the transaction is repeated, the attempt no longer owns the agent run, and nothing is written.
EXPAND: TextClause = text("""
    WITH parent AS (
        UPDATE agent_runs SET item_count = :count WHERE id = :id RETURNING *
    )
    INSERT INTO agent_runs (id, run_id, parent_id, item_index, item, name, position, level, module,
        provider, model, priority, dependencies, reads, accept_missing_inputs, limit_usd)
    SELECT ids.id, p.run_id, p.id, items.place - 1, items.item,
        p.name || '[' || items.place - 1 || ']', p.position, p.level, p.module,
        p.provider, p.model, p.priority, p.dependencies, CAST(:reads AS text[]),
        p.accept_missing_inputs, p.limit_usd
    FROM parent p
    CROSS JOIN jsonb_array_elements(CAST(:items AS jsonb)) WITH ORDINALITY AS items(item, place)
    JOIN unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS ids(id, place)
        ON ids.place = items.place
    ON CONFLICT (run_id, name) DO NOTHING
""")
# A skipped item has not failed, and its output is null. An agent fails if all of its items have
# failed. The agent also fails if one item has failed and
# either the agent is critical or the agent's run allows no failed agents. The size of the outputs
# is checked before the list of the outputs is built, because Postgres cannot build a JSON list of
# more than 256 MB.
COLLECT: TextClause = text("""
    WITH counted AS (
        SELECT p.id, p.priority, p.item_count AS total,
            count(*) FILTER (WHERE i.status NOT IN ('completed', 'skipped')) AS missing,
            count(*) FILTER (WHERE i.status = 'skipped') AS skipped,
            coalesce(sum(octet_length(i.output::text)), 0) AS bytes,
            (array_agg(i.name || ': ' || coalesce(i.error, i.status) ORDER BY i.item_index)
                FILTER (WHERE i.status NOT IN ('completed', 'skipped')))[1] AS first
        FROM agent_runs p JOIN agent_runs i ON i.parent_id = p.id AND i.item_index < p.item_count
        WHERE p.run_id = :run_id AND p.level = :level AND p.status = 'waiting'
            AND p.item_count IS NOT NULL
        GROUP BY p.id
    ), judged AS (
        SELECT id, total, missing, skipped, CASE
            WHEN missing > 0
                AND (missing = total OR priority >= :critical OR NOT :allow_partial_completion)
            THEN format('%s of %s items failed; %s', missing, total, first)
            WHEN bytes > :max_bytes
            THEN format('the outputs of its items have %s bytes, engine.max_collected_bytes is %s',
                bytes, :max_bytes) END AS error,
            CASE WHEN missing > 0 THEN 'ItemsFailed' ELSE 'ResultTooLarge' END AS error_class
        FROM counted
    ), answered AS (
        SELECT j.*, CASE WHEN j.error IS NULL THEN (
            SELECT jsonb_agg(CASE WHEN i.status = 'completed' THEN i.output END
                ORDER BY i.item_index)
            FROM agent_runs i JOIN agent_runs p ON p.id = i.parent_id
            WHERE p.id = j.id AND i.item_index < p.item_count
        ) END AS output
        FROM judged j
    ), ended AS (
        UPDATE agent_runs p SET finished_at = clock_timestamp(), error = j.error,
            status = CASE WHEN j.error IS NULL THEN 'completed' ELSE 'failed' END,
            error_class = CASE WHEN j.error IS NOT NULL THEN j.error_class END,
            output = j.output, kept = CASE WHEN j.error IS NOT NULL THEN p.kept END,
            changed_in = CASE WHEN j.error IS NULL AND (p.kept IS NULL
                OR CAST(p.kept -> 'output' AS text) IS DISTINCT FROM CAST(j.output AS text))
                THEN r.round ELSE p.changed_in END
        FROM answered j, runs r WHERE p.id = j.id AND r.id = p.run_id
        RETURNING p.id, p.run_id, p.name, p.attempt, p.status, p.error, p.error_class, j.total,
            j.missing, j.skipped
    ), attempted AS (
        UPDATE attempts t SET outcome = e.status, error = e.error, error_class = e.error_class,
            finished_at = clock_timestamp()
        FROM ended e WHERE t.agent_run_id = e.id AND t.number = e.attempt
    )
    INSERT INTO events (run_id, agent_run_id, attempt, type, data)
    SELECT run_id, id, attempt, 'agent_' || status, jsonb_strip_nulls(jsonb_build_object(
        'agent', name, 'items', total, 'failed', missing, 'skipped', nullif(skipped, 0),
        'error', error, 'error_class', error_class))
    FROM ended
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """The list of an agent with a for_each, and the other agents from which the items read outputs.

    Attributes:
        values: The elements as JSON values; the list is empty only if it is read again.
        reads: Names of the agents whose outputs each item reads.
        seen: If the list is read again: for each element, the hash of the values that its item
            reads. An item with an equal hash keeps its result. None if the list has no items yet.
    """

    values: Sequence[Any]
    reads: Sequence[str]
    seen: Sequence[str] | None = None


async def expand(connection: AsyncConnection, agent_run_id: UUID, items: Items) -> None:
    """Write the agent runs of a list, inside the transaction that records the list's attempt."""
    given = {
        "id": agent_run_id,
        "count": len(items.values),
        "items": dumps(list(items.values)),
        "reads": list(items.reads),
    }
    if items.seen is not None:
        await connection.execute(REEXPAND, given | {"seen": list(items.seen)})
    await connection.execute(EXPAND, given | {"ids": [uuid7() for _ in items.values]})


async def collect(
    connection: AsyncConnection,
    run_id: UUID,
    level: int,
    *,
    allow_partial_completion: bool,
    max_bytes: int,
) -> None:
    """End a level's agents that wait for their items, after all of these items have ended.

    Args:
        connection: Inside a transaction that has locked the run.
        run_id: The run.
        level: The run's current level.
        allow_partial_completion: Whether an agent may complete without some of its items.
        max_bytes: Largest allowed size of a list of outputs, in bytes.
    """
    values = {
        "run_id": run_id,
        "level": level,
        "allow_partial_completion": allow_partial_completion,
        "max_bytes": max_bytes,
        "critical": CRITICAL_PRIORITY,
    }
    await connection.execute(COLLECT, values)

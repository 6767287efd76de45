"""Recent events of the whole cluster: histories, calls, and events that programs recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: The type of an event that is an entry of the ledger.
API_CALL = "api_call"
# Each part is read backwards along its key, so only the needed rows are read. If a type is given,
# rows are read until enough rows of this type have been found.
RECENT: TextClause = text(f"""
    (SELECT e.at, e.type, CAST(e.agent_run_id AS text) AS agent_id,
        CAST(e.run_id AS text) AS workflow_id, e.data, e.id
    FROM events e
    WHERE CAST(:type AS text) IS NULL OR (e.type = :type AND :type <> '{API_CALL}')
    ORDER BY e.id DESC LIMIT :count)
    UNION ALL
    (SELECT r.at, r.type, r.agent_id, r.workflow_id, r.data, r.id
    FROM recorded_events r
    WHERE CAST(:type AS text) IS NULL OR r.type = :type ORDER BY r.id DESC LIMIT :count)
    UNION ALL
    (SELECT c.created_at, '{API_CALL}', CAST(c.agent_run_id AS text), CAST(c.run_id AS text),
        jsonb_build_object('agent', c.agent, 'provider', c.provider, 'model', c.model,
            'outcome', c.outcome, 'kind', c.kind, 'seconds', c.seconds, 'input_tokens',
            c.input_tokens + c.cached_tokens + c.cache_write_tokens + c.cache_write_1h_tokens,
            'output_tokens', c.output_tokens, 'cost_usd', CAST(c.cost_usd AS float8)), c.id
    FROM cost_entries c
    WHERE coalesce(:type, '{API_CALL}') = '{API_CALL}' AND c.kind NOT IN ('correction', 'cached')
    ORDER BY c.id DESC LIMIT :count)
    ORDER BY at DESC, id DESC LIMIT :count
""")  # noqa: S608  a constant
RECORD: TextClause = text("""
    INSERT INTO recorded_events (type, agent_id, workflow_id, data)
    VALUES (:type, :agent_id, :workflow_id, CAST(:data AS jsonb)) RETURNING at
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricEvent:
    """An event of the cluster.

    Attributes:
        timestamp: Time of the event (UTC).
        event_type: A type from a run's history such as ``agent_completed``, the type ``api_call``,
            or a type that a program recorded.
        agent_id: Id of the agent run (``AgentResult.agent_id``) or the id that a program recorded;
            None if the event has no such id.
        workflow_id: Id of the run or the id that a program recorded; None if the event has no such
            id.
        data: Facts, such as the agent's name, the model, tokens and dollars.
    """

    timestamp: datetime
    event_type: str
    agent_id: str | None
    workflow_id: str | None
    data: Mapping[str, Any]


async def recent_events(
    connection: AsyncConnection, *, count: int, event_type: str | None
) -> list[MetricEvent]:
    """Read the newest events, oldest first.

    Args:
        connection: A connection inside a transaction.
        count: Maximum number of events to read.
        event_type: Type of the events; None means all types.
    """
    events = [
        MetricEvent(
            timestamp=row.at,
            event_type=row.type,
            agent_id=row.agent_id,
            workflow_id=row.workflow_id,
            data=row.data,
        )
        for row in await connection.execute(RECENT, {"type": event_type, "count": count})
    ]
    return events[::-1]


async def record_event(
    connection: AsyncConnection,
    *,
    event_type: str,
    agent_id: str | None,
    workflow_id: str | None,
    data: str,
) -> datetime:
    """Store an event of a program and return its time.

    Args:
        connection: A connection inside a transaction.
        event_type: Type of the event.
        agent_id: Agent that the event concerns, or None.
        workflow_id: Run or workflow that the event concerns, or None.
        data: Facts, as JSON.
    """
    values = {"type": event_type, "agent_id": agent_id, "workflow_id": workflow_id, "data": data}
    at: datetime = await connection.scalar(RECORD, values)
    return at

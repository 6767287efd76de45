"""Reads the history in the order of the ids; a reader that continues after an id misses no event.

An event gets its id before its transaction commits. Therefore an event with a lower id may appear
after an event with a higher id. A reader that continues after the higher id would then miss the
event with the lower id. For this reason, events that are younger than the oldest open transaction
are held back for the milliseconds that this transaction takes. When an event is returned, all
events with lower ids have appeared.

This method relies on two facts. First, only transactions of this package write events. The sessions
of these transactions are named ``agentchord...``. The transactions end within seconds, even if the
processes die. Second, the reader's role sees these sessions in pg_stat_activity. For example, a
role sees all sessions that it owns.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import RunEvent
from app.domain.json_text import read_json

# This statement runs before the statement that reads the events. A transaction that this statement
# does not find has either committed before the snapshot of the reading statement, or begins later
# and writes younger events.
HORIZON: TextClause = text("""
    SELECT least(statement_timestamp(), min(xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND application_name LIKE 'agentchord%'
""")
READ_RUN: TextClause = text("""
    SELECT id, type, at, attempt, data FROM events
    WHERE run_id = :run_id AND id > :after ORDER BY id LIMIT :limit
""")
# Events are returned as JSON, because the relay passes on the events in this form. The events are
# returned in arrays, because one row costs less than a thousand rows. The returned horizon is for
# the next page, whose snapshot is younger.
READ_ALL: TextClause = text("""
    WITH page AS (
        SELECT e.id, e.type, row_to_json(e)::text AS document, e.at >= :horizon AS young
        FROM events e WHERE e.id > :after ORDER BY e.id LIMIT :limit
    ), settled AS (
        SELECT * FROM page WHERE id < ALL (SELECT id FROM page WHERE young)
    )
    SELECT array_agg(id ORDER BY id) AS ids, array_agg(type ORDER BY id) AS types,
        array_agg(document ORDER BY id) AS documents,
        (SELECT count(*) FROM page) AS found, (
            SELECT least(statement_timestamp(), min(xact_start)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
                AND application_name LIKE 'agentchord%'
        ) AS horizon
    FROM settled
""")
# The last id that was assigned; this number never falls, even if events are removed.
LAST_ID: TextClause = text("""
    SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('events', 'id')), 0)
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """Events of a run; no other event can appear before these events any more.

    Attributes:
        rows: The events as dicts with id, type, at, attempt and data, in the order of their ids.
        more: Whether there may be more events than the page can hold.
        held: Whether younger events are held back.
    """

    rows: list[dict[str, Any]]
    more: bool
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Events of all runs; no other event can appear before these events any more.

    Attributes:
        ids: The events' ids, ascending.
        types: The events' types.
        documents: The JSON of each event.
        more: Whether there may be further events that do not fit on the page or are held back.
        horizon: The horizon for the next page; all events before this time are settled when the
            next page is read.
    """

    ids: list[int]
    types: list[str]
    documents: list[str]
    more: bool
    horizon: datetime


async def read_run(connection: AsyncConnection, run_id: UUID, *, after: int, limit: int) -> Settled:
    """Read a page of a run's history."""
    horizon = await read_horizon(connection)
    values = {"run_id": run_id, "after": after, "limit": limit}
    found = (await connection.execute(READ_RUN, values)).mappings()
    rows = [dict(row) for row in found]
    count = next((place for place, row in enumerate(rows) if row["at"] >= horizon), len(rows))
    held = count < len(rows)
    return Settled(rows=rows[:count], more=not held and len(rows) == limit, held=held)


async def read_horizon(connection: AsyncConnection) -> datetime:
    """Read the horizon: in every later statement, all events before this time are settled."""
    horizon: datetime = (await connection.execute(HORIZON)).scalar_one()
    return horizon


async def read_all(
    connection: AsyncConnection, *, after: int, limit: int, horizon: datetime
) -> Page:
    """Read a page of the settled history of all runs; an earlier statement has read the horizon."""
    values = {"after": after, "limit": limit, "horizon": horizon}
    row = (await connection.execute(READ_ALL, values)).one()
    return Page(
        ids=row.ids or [],
        types=row.types or [],
        documents=row.documents or [],
        more=row.found == limit or row.found > len(row.ids or ()),
        horizon=row.horizon,
    )


async def last_id(connection: AsyncConnection) -> int:
    """Read the last id that was assigned to an event."""
    found: int = (await connection.execute(LAST_ID)).scalar_one()
    return found


def parse_event(document: str | bytes) -> RunEvent:
    """Parse an event from its JSON."""
    fields = read_json(document)
    agent_run_id = fields["agent_run_id"]
    return RunEvent(
        id=fields["id"],
        run_id=UUID(fields["run_id"]),
        agent_run_id=None if agent_run_id is None else UUID(agent_run_id),
        attempt=fields["attempt"],
        type=fields["type"],
        at=datetime.fromisoformat(fields["at"]),
        data=fields["data"],
    )

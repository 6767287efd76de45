"""The history as it is read: in the order of its ids, with nothing that appears in between later.

An event gets its id before its transaction commits, so one with a lower id may appear after one
with a higher id, and a reader that goes on from the highest id that it has seen would miss it. So
events that are younger than the oldest transaction under way are held back, for the milliseconds
that those take: all events before a returned one are there by then.

This relies on two facts: every transaction that writes events is one of this package, whose
sessions are named ``agentchord...`` and end within seconds, even if their processes die; and the
role of the reader sees them in pg_stat_activity, as the role that owns them does.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import RunEvent

# A statement of its own, before the one that reads: a transaction that is not found here has
# committed by the time of that one's snapshot, and a later one writes younger events.
HORIZON: TextClause = text("""
    SELECT least(statement_timestamp(), min(xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND application_name LIKE 'agentchord%'
""")
READ_RUN: TextClause = text("""
    SELECT id, type, at, attempt, data FROM events
    WHERE run_id = :run_id AND id > :after ORDER BY id LIMIT :limit
""")
# As JSON, the form in which they go on, in arrays: one row instead of a thousand. The horizon that
# comes back is for the next page, whose snapshot is younger.
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
# The number that was given out last; it never falls, whatever is removed.
LAST_ID: TextClause = text("""
    SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('events', 'id')), 0)
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """Events of a run before which none can appear any more.

    Attributes:
        rows: The events as dicts with id, type, at, attempt and data, by id.
        more: Whether there may be more than fit the page.
        held: Whether younger ones are held back.
    """

    rows: list[dict[str, Any]]
    more: bool
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Events of all runs before which none can appear any more.

    Attributes:
        ids: Their ids, ascending.
        types: Their types.
        documents: Each as JSON.
        more: Whether there are others: more than fit the page, or some that are held back.
        horizon: For the next page: older events are settled then.
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
    """Read the time before which events are settled, in every statement from the next on."""
    horizon: datetime = (await connection.execute(HORIZON)).scalar_one()
    return horizon


async def read_all(
    connection: AsyncConnection, *, after: int, limit: int, horizon: datetime
) -> Page:
    """Read a page of the history of all runs, as far as a horizon read before settles it."""
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
    """Read the id that was given out last."""
    found: int = (await connection.execute(LAST_ID)).scalar_one()
    return found


def parse_event(document: str | bytes) -> RunEvent:
    """Parse an event from its JSON."""
    fields = orjson.loads(document)
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

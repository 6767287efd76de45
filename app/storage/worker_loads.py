"""The names of the code that live workers load; each worker writes its row every few seconds."""

from collections.abc import Sequence

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.loaded import Loaded

#: A worker without news for this number of seconds is not live. A killed worker removes no row.
LIVE_S = 30
KEPT_S = 3600

PUBLISH: TextClause = text("""
    WITH old AS (
        DELETE FROM worker_loads
        WHERE seen_at < clock_timestamp() - make_interval(secs => :kept_s) AND worker <> :worker
    )
    INSERT INTO worker_loads (worker, node, loaded, seen_at)
    VALUES (:worker, :node, :loaded, clock_timestamp())
    ON CONFLICT (worker) DO UPDATE SET node = excluded.node, loaded = excluded.loaded,
        seen_at = excluded.seen_at
""").bindparams(bindparam("loaded", type_=JSONB))
REMOVE: TextClause = text("DELETE FROM worker_loads WHERE worker = :worker")
READ: TextClause = text("""
    SELECT loaded FROM worker_loads
    WHERE seen_at > clock_timestamp() - make_interval(secs => :live_s) ORDER BY node
""")


async def publish(connection: AsyncConnection, worker: str, node: str, loaded: Loaded) -> None:
    """Write the row of a worker, and remove the rows of workers that ended long ago."""
    row = {"worker": worker, "node": node, "loaded": loaded.as_json(), "kept_s": KEPT_S}
    await connection.execute(PUBLISH, row)


async def remove(connection: AsyncConnection, worker: str) -> None:
    """Remove the row of a worker that ends."""
    await connection.execute(REMOVE, {"worker": worker})


async def read_live(connection: AsyncConnection) -> Sequence[Loaded]:
    """Return the names that the live workers have published."""
    rows = await connection.scalars(READ, {"live_s": LIVE_S})
    return [Loaded.from_json(row) for row in rows]

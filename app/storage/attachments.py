"""Stores a hash of the attachments of an agent run, so that each attempt sends the same bytes.

Only a hash is stored. The first attempt writes the hash before its first call. Every later attempt
compares the hash of its own attachments with the stored hash. A retry by a client begins anew, with
the current content of the files.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.fetch import fetch
from app.storage.session import dumps

# attached: [{id, attempt, digest}]. Only the attempt that owns the agent run may write.
FIX_ATTACHMENTS: TextClause = text("""
    WITH owned AS MATERIALIZED (
        SELECT a.id, g.digest
        FROM jsonb_to_recordset(CAST(:attached AS jsonb)) AS g(id uuid, attempt int, digest text)
            JOIN agent_runs a ON a.id = g.id AND a.attempt = g.attempt AND a.status = 'running'
        ORDER BY a.id FOR NO KEY UPDATE OF a
    )
    UPDATE agent_runs a SET attached = coalesce(a.attached, owned.digest)
    FROM owned WHERE a.id = owned.id RETURNING a.id, a.attached
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attached:
    """The hash of all attachments that an attempt is about to send."""

    id: UUID
    attempt: int
    digest: str


async def fix_attachments(
    connection: AsyncConnection, attached: Sequence[Attached]
) -> list[str | None]:
    """Store the hash of each agent run that has no stored hash.

    Args:
        connection: Inside a transaction.
        attached: The hashes of the attachments that the attempts are about to send.

    Returns:
        The stored hash of each agent run, in order; None if the attempt does not own its agent run
        any more.
    """
    values = {"attached": dumps([asdict(each) for each in attached])}
    rows = await fetch(connection, FIX_ATTACHMENTS, values)
    stored = {row.id: row.attached for row in rows}
    return [stored.get(each.id) for each in attached]

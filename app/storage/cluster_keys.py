"""The secret keys that the workers of a cluster share, and that only Postgres stores."""

import secrets

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

#: The key that signs shared answers in Redis.
ANSWERS = "answers"
KEY_BYTES = 32

# A client that finds no row writes one; if two clients write at once, the first key stays.
MAKE: TextClause = text("""
    INSERT INTO cluster_keys (name, key) VALUES (:name, :key) ON CONFLICT (name) DO NOTHING
""")
READ: TextClause = text("SELECT key FROM cluster_keys WHERE name = :name")


async def cluster_key(engine: AsyncEngine, name: str) -> bytes:
    """Return a key of the cluster; the first process that asks for the key makes it."""
    async with engine.begin() as connection:
        if (key := await connection.scalar(READ, {"name": name})) is None:
            await connection.execute(MAKE, {"name": name, "key": secrets.token_bytes(KEY_BYTES)})
            key = await connection.scalar(READ, {"name": name})
    return bytes(key)

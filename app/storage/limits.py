"""Stores the operator's rate limits, and counts recent calls by provider and model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.session import dumps

READ: TextClause = text("""
    SELECT provider, model, limits FROM rate_limits ORDER BY provider, model
""")
# If two operators set different keys at once, both changes have an effect.
SET: TextClause = text("""
    INSERT INTO rate_limits (provider, model, limits)
    VALUES (:provider, :model, CAST(:limits AS jsonb))
    ON CONFLICT (provider, model) DO UPDATE
    SET limits = rate_limits.limits || excluded.limits, changed_at = now()
""")
LOCK: TextClause = text("""
    SELECT limits FROM rate_limits WHERE provider = :provider AND model = :model FOR UPDATE
""")
FORGET: TextClause = text("""
    UPDATE rate_limits SET limits = limits - CAST(:keys AS text[]), changed_at = now()
    WHERE provider = :provider AND model = :model
""")
REMOVE_EMPTY: TextClause = text("""
    DELETE FROM rate_limits
    WHERE provider = :provider AND model = :model AND limits = '{}'::jsonb
""")
# If a call was first unconfirmed and became known later, the call has two entries but counts as one
# call. A call in flight has a hold and no entry yet. The transaction that deletes the hold writes
# the entry.
RECENT_CALLS: TextClause = text("""
    SELECT provider, model, count(*) AS requests, sum(tokens)::bigint AS tokens
    FROM (
        SELECT provider, model, call_id,
            sum(input_tokens + cache_write_tokens + cache_write_1h_tokens + output_tokens) AS tokens
        FROM cost_entries
        WHERE created_at > clock_timestamp() - make_interval(secs => :seconds)
            AND kind IN ('actual', 'estimated', 'unconfirmed')
        GROUP BY provider, model, call_id
        UNION ALL
        SELECT coalesce(h.provider, a.provider), coalesce(h.model, a.model), h.call_id, 0
        FROM holds h JOIN agent_runs a ON a.id = h.agent_run_id
        WHERE h.created_at > clock_timestamp() - make_interval(secs => :seconds)
    ) calls
    GROUP BY provider, model
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBlock:
    """The stored limits of one block.

    Attributes:
        provider: Provider name.
        model: Model name or pattern, or ``default``.
        limits: The limits that an operator set, by key; the value None means that there is no
            limit.
    """

    provider: str
    model: str
    limits: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCalls:
    """Calls of one model in a period.

    Attributes:
        provider: Provider name.
        model: Model name.
        requests: Number of calls that reached the provider or are in flight.
        tokens: Number of output tokens, plus the input tokens that were not read from a cache.
    """

    provider: str
    model: str
    requests: int
    tokens: int


async def read_limits(connection: AsyncConnection) -> list[StoredBlock]:
    """Read all stored limits, in the order of provider and model."""
    rows = await connection.execute(READ)
    return [StoredBlock(**row) for row in rows.mappings()]


async def set_limits(
    connection: AsyncConnection, provider: str, model: str, limits: Mapping[str, Any]
) -> None:
    """Store some keys of a block; the other keys of the block stay as they are."""
    values = {"provider": provider, "model": model, "limits": dumps(limits)}
    await connection.execute(SET, values)


async def forget_limits(
    connection: AsyncConnection, provider: str, model: str, keys: Collection[str]
) -> list[str]:
    """Remove keys of a block, or all keys if no key is given; returns the removed keys."""
    block = {"provider": provider, "model": model}
    stored = await connection.scalar(LOCK, block) or {}
    forgotten = [key for key in stored if key in keys or not keys]
    await connection.execute(FORGET, block | {"keys": forgotten})
    await connection.execute(REMOVE_EMPTY, block)
    return forgotten


async def recent_calls(connection: AsyncConnection, seconds: float) -> list[ModelCalls]:
    """Count the calls of the last ``seconds`` seconds, including the calls in flight."""
    rows = await connection.execute(RECENT_CALLS, {"seconds": seconds})
    return [ModelCalls(**row) for row in rows.mappings()]

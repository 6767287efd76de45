"""Stores answers in Redis for equal requests; only one of the callers asks the provider.

The address of an answer is a hash of its request. While Redis is away, the cache finds and stores
no answer, so every caller asks the provider. An answer is deleted at the end of its time to live.

An answer may contain tool calls, and a worker executes them. Therefore an answer is signed with a
key that Redis does not have. A client that can only write to Redis cannot make an answer.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.domain.json_text import write_json
from app.domain.usage import Usage
from app.llm import wire
from app.llm.base import LLMResponse, ToolCall
from app.llm.sendable import sendable
from app.storage.redis import Script

PREFIX = "agentchord:answers"
#: Seconds after which other callers no longer wait for a caller that died while it asked.
LEASE_S = 9.0
#: Redis counts as away if it does not answer within this time.
MAX_WAIT_S = 2.0
#: Larger answers are not stored, because Redis also stores the queues and the limits.
MAX_BYTES = 256_000
_SIGNATURE_BYTES = 32
_COMPLETE = frozenset({"stop", "tool_calls"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The result of a look for the answer to a request.

    Attributes:
        answer: The answer, or None.
        asked_by: Token of the caller that asks the provider. If no other caller asks, this is the
            token of the caller that looks.
    """

    answer: LLMResponse | None = None
    asked_by: str | None = None


def address_of(request: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a request, written as JSON with sorted keys."""
    return hashlib.sha256(write_json(sendable(request), sort_keys=True)).hexdigest()


class AnswerCache:
    """The answers of a cluster.

    Weakness: requests share an answer only if all their bytes are equal. An answer is used for its
    whole time to live even if the provider has changed the model. ``prompt_cache`` is the
    alternative for requests that have only the beginning in common.

    Args:
        redis: The process's client, which must not have ``decode_responses``. This class does not
            close the client.
        key: Secret key that all workers of the cluster have; it signs the answers.
        lease_s: Seconds after which other callers no longer wait for a caller that does not renew
            its lease.

    Example:
        look = await cache.look(address, token)
        if look is not None and look.asked_by == token:
            answer = await ask()
            await cache.finish(address, token, answer, ttl_s=3600)
    """

    def __init__(self, redis: Redis, *, key: bytes, lease_s: float = LEASE_S) -> None:
        self.lease_s = lease_s
        self._key = key
        self._script = Script(redis, "app.llm", "cache.lua")
        self._lost = False

    async def look(self, address: str, token: str) -> Look | None:
        """Look for an answer; this caller must ask if there is no answer and no other caller asks.

        Args:
            address: Address of the request.
            token: Token of the caller; the caller gets the lease if it has to ask.

        Returns:
            The answer, or the token of the caller that asks; None if Redis is away. If an answer
            cannot be used, this caller asks and replaces the answer.
        """
        found = await self._exchange(address, "look", token)
        if found is None:
            return None
        answer, asked_by = found
        if answer is None:
            return Look(asked_by=asked_by.decode())
        known = self._verified(address, answer)
        return Look(asked_by=token) if known is None else Look(answer=known)

    async def keep(self, address: str, token: str) -> None:
        """Renew the lease of a caller that is still asking."""
        await self._exchange(address, "keep", token)

    async def finish(
        self, address: str, token: str, answer: LLMResponse | None, ttl_s: float
    ) -> None:
        """Store the answer, and end the lease of the caller that asked.

        Args:
            address: Address of the request.
            token: Token of the caller.
            answer: The answer, or None; an answer that was cut short or refused is not stored.
            ttl_s: Seconds for which the answer is stored.
        """
        whole = answer if answer is not None and answer.finish_reason in _COMPLETE else None
        value = b"" if whole is None else self._signed(address, _written(whole))
        kept = value if len(value) <= MAX_BYTES else b""
        await self._exchange(address, "finish", token, kept, int(ttl_s * 1000))

    def _signed(self, address: str, value: bytes) -> bytes:
        return self._signature(address, value) + value

    def _verified(self, address: str, stored: bytes) -> LLMResponse | None:
        """Read a stored answer; return None if no worker of this cluster has written it."""
        signature, value = stored[:_SIGNATURE_BYTES], stored[_SIGNATURE_BYTES:]
        if hmac.compare_digest(signature, self._signature(address, value)):
            return _read(value)
        log.warning("answer_not_signed", effect="the answer is ignored and replaced")
        return None

    def _signature(self, address: str, value: bytes) -> bytes:
        # The address is signed, too. Otherwise, the answer to one request could become the answer
        # to another request.
        return hmac.digest(self._key, address.encode() + b" " + value, "sha256")

    async def _exchange(self, address: str, command: str, token: str, *values: Any) -> Any:
        # Both keys have the same hash tag, so that a Redis Cluster stores them on the same node.
        keys = f"{PREFIX}:{{{address}}}", f"{PREFIX}:{{{address}}}:asked"
        arguments = (command, token, int(self.lease_s * 1000), *values)
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                found = await self._script.run(keys, arguments)
        except (RedisError, OSError) as error:
            if not self._lost:
                self._lost = True
                log.warning("answers_unavailable", error=str(error), effect="nothing is shared")
            return None
        self._lost = False
        return found


def _written(answer: LLMResponse) -> bytes:
    """Serialize an answer, without the parts that belong only to its original request."""
    return wire.write_json(
        {
            "content": answer.content,
            "model": answer.model,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "finish_reason": answer.finish_reason,
            "tool_calls": [asdict(call) for call in answer.tool_calls or ()],
            "usage": asdict(answer.usage),
            "original": _shareable(answer.metadata.get("original")),
        }
    ).encode()


def _shareable(original: Any) -> Any:
    """Return an original; None if it names a container, which only its conversation may use."""
    return None if original and "container" in original else original


def _read(value: bytes) -> LLMResponse | None:
    """Read a stored answer; return None if another version of this program wrote it."""
    try:
        fields = wire.read_json(value)
        calls: Sequence[ToolCall] = [ToolCall(**call) for call in fields.pop("tool_calls")]
        original = fields.pop("original")
        return LLMResponse(
            **fields | {"usage": Usage(**fields["usage"])},
            tool_calls=calls or None,
            metadata={"cached": True} | ({"original": original} if original else {}),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None

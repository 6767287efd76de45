"""Readings of a Redis that is cut off: they fail soon."""

import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.client import live_state
from app.domain.circuit import CircuitBreakerConfig
from app.errors import ServiceUnavailable
from app.storage.redis import connect_redis

pytestmark = pytest.mark.anyio


async def test_a_redis_that_takes_connections_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_state, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        redis = connect_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        settings = SimpleNamespace(circuit_breaker=CircuitBreakerConfig())
        platform = cast(Any, SimpleNamespace(redis=redis, settings=settings))
        asked = live_state.LiveState(platform, cast(Any, None))

        for question in (asked.buckets, asked.circuits):
            with pytest.raises(ServiceUnavailable, match="no answer within"):
                await question()
        await redis.aclose()

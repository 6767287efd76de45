"""Calls that are granted and wait for the moment at which they are sent."""

import asyncio
import time

import pytest

from app.domain.policies import RateLimitConfig
from app.domain.protocols import PROTOCOLS
from app.rate_limits.base import LimitRequest, Permit
from app.rate_limits.pending_sends import PendingSends
from app.rate_limits.tiers import spec_of

pytestmark = pytest.mark.anyio

SPEC = spec_of("acme/default", RateLimitConfig(requests_per_minute=3000, burst=1))
LATE, ON_TIME = 3, 30


def permit(number: int, starts_at_s: float) -> Permit:
    request = LimitRequest(
        provider="acme",
        model="m",
        counting=PROTOCOLS["openai"].counting,
        run_id="r",
        input_tokens=1,
        output_tokens=1,
    )
    return Permit(
        bucket="acme/default",
        request_id=number,
        request=request,
        spec=SPEC,
        taken=(1.0,) * len(SPEC.tiers),
        granted_at=0.0,
        starts_at_s=starts_at_s,
    )


async def test_a_late_call_does_not_wait_behind_every_call_that_is_on_time() -> None:
    assert SPEC.paced
    pending, sent = PendingSends(SPEC), list[int]()
    begun_s = time.monotonic()

    async def send(number: int, starts_at_s: float) -> None:
        each = permit(number, starts_at_s)
        pending.expect(each)
        await pending.moment_of(each)
        pending.mark_sent(each, measured=True)
        sent.append(number)

    late = [asyncio.create_task(send(number, begun_s)) for number in range(LATE)]
    on_time = []
    for number in range(LATE, LATE + ON_TIME):
        starts_at_s = begun_s + (number - LATE) * SPEC.interval_s
        await asyncio.sleep(max(starts_at_s - time.monotonic(), 0))
        on_time.append(asyncio.create_task(send(number, starts_at_s)))
    await asyncio.gather(*late, *on_time)

    assert sent == list(range(LATE + ON_TIME))

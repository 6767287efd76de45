"""Which waiters are sent away because their bucket stays closed for long, and until when.

Only what is known counts: a pause that the provider asked for, and the limits per hour and per day.
A limit per minute is waited for in place: every call that used less than it reserved lets another
one start sooner, and only a request that waits here can take that chance.
"""

import random
import time
from dataclasses import dataclass

from app.domain.waits import LongWait
from app.rate_limits.base import Reply
from app.rate_limits.fair_queue import FairQueue, Waiter
from app.rate_limits.tiers import BucketSpec

#: A process sends all of its waiters away for up to this share longer, so that the processes do not
#: come back in the same moment; those of one process keep their order.
SPREAD, MOST_SPREAD_S = 0.05, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """A bucket in which nothing starts before a moment.

    Attributes:
        until_s: The moment, as ``time.monotonic()``.
        interval_s: Seconds from one start to the next, from then on.
        reason: Why it is closed: the name of a tier, or ``pause``.
    """

    until_s: float
    interval_s: float
    reason: str


def closed_by_limits(spec: BucketSpec, reply: Reply) -> Closed | None:
    """Return what a reply says of the limits per hour and day; None if all have room."""
    for tier in spec.tiers:
        if tier.name == reply.long_tier:
            return _closed(reply.long_s, interval_s=1 / tier.rate, reason=tier.name)
    return None


def closed_by_pause(seconds: float) -> Closed:
    """Return a bucket that is paused for so many seconds."""
    return _closed(seconds, interval_s=0.0, reason="pause")


def later(one: Closed | None, other: Closed | None) -> Closed | None:
    """Return the one that lasts longer, if any is still closed."""
    now_s = time.monotonic()
    closed = [each for each in (one, other) if each is not None and each.until_s > now_s]
    return max(closed, key=lambda each: each.until_s, default=None)


def send_away(queue: FairQueue, closed: Closed | None, bucket: str) -> None:
    """Send away the waiters whose turn comes later than their callers accept to wait."""
    if closed is None:
        return
    wait_s = closed.until_s - time.monotonic()
    if wait_s <= 0:
        return
    for waiter in queue.in_order():
        if wait_s > waiter.max_wait_s and not waiter.future.done():
            _send_away(queue, waiter, wait_s, f"{bucket} {closed.reason}")
        wait_s += closed.interval_s


def _send_away(queue: FairQueue, waiter: Waiter, wait_s: float, waits_for: str) -> None:
    queue.leave(waiter)
    waiter.future.set_exception(LongWait(wait_s=wait_s, waits_for=waits_for))


def _closed(seconds: float, *, interval_s: float, reason: str) -> Closed:
    spread_s = random.uniform(0, min(SPREAD * seconds, MOST_SPREAD_S))
    return Closed(
        until_s=time.monotonic() + seconds + spread_s, interval_s=interval_s, reason=reason
    )

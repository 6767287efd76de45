"""Sends away waiters whose bucket stays closed for longer than the waiters' callers accept.

A wait counts only if its length is known: a pause that the provider asked for, or a wait for a
limit per hour or per day. If a limit per minute is used up, requests always wait here. When a call
has used less than it had reserved, another call can start earlier. Only a request that waits here
can use this chance.
"""

import random
import time
from dataclasses import dataclass

from app.domain.waits import LongWait
from app.rate_limits.base import Reply
from app.rate_limits.fair_queue import FairQueue, Waiter
from app.rate_limits.tiers import BucketSpec

#: A process makes the waits of all its waiters longer by one random share of at most this size. The
#: waiters of different processes therefore do not come back at the same moment. The waiters of one
#: process keep their order.
SPREAD, MOST_SPREAD_S = 0.05, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """A time before which no call of a bucket starts.

    Attributes:
        until_s: The time, by the clock of ``time.monotonic()``.
        interval_s: Seconds between two starts after that time.
        reason: The reason why the bucket is closed: the name of a tier, or ``pause``.
    """

    until_s: float
    interval_s: float
    reason: str


def closed_by_limits(spec: BucketSpec, reply: Reply) -> Closed | None:
    """Return until when limits per hour and day close a bucket; None if all limits have room."""
    for tier in spec.tiers:
        if tier.name == reply.long_tier:
            return _closed(reply.long_s, interval_s=1 / tier.rate, reason=tier.name)
    return None


def closed_by_pause(seconds: float) -> Closed:
    """Return the time for which a pause of so many seconds closes a bucket."""
    return _closed(seconds, interval_s=0.0, reason="pause")


def later(one: Closed | None, other: Closed | None) -> Closed | None:
    """Return the value with the later end, or None if both times are over."""
    now_s = time.monotonic()
    closed = [each for each in (one, other) if each is not None and each.until_s > now_s]
    return max(closed, key=lambda each: each.until_s, default=None)


def send_away(queue: FairQueue, closed: Closed | None, bucket: str) -> None:
    """Send away the waiters that would wait longer than their callers accept."""
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

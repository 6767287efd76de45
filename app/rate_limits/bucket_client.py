"""A process's side of one bucket: waiting requests, permits in use, exchanges with the backend.

At most one exchange is under way. Events during an exchange are reported with the next exchange.
Hundreds of requests that arrive at the same time therefore cost one round trip, like a single
request.

The diagram shows the life of a permit, from the request to the correction. A line that starts with
``--`` shows how a permit or request leaves this path. An arrow leads back to the queue::

    enter()
      v
    queued        in the FairQueue <------------------------+------------------+
      |  _compose(): FairQueue.offer()                      |                  |
      v                                                     |                  |
    offered       goes with the exchange                    |                  |
      |            -- not granted: take_back() -------------+                  |
      |  _granted(): the backend took the amounts; from here the permit is     |
      v              in _live, and every "--" gives the amounts back           |
    granted       the start is up to HORIZON_S away                            |
      |            -- abandoned meanwhile: _give_back()                        |
      v                                                                        |
    planned       in _planned, with its waiter; an early waiter has the permit |
      |            -- paused before the start: pause() ------------------------+
      |            -- stale (paced, and over STALE_S late): begin() -----------+
      |            -- not used: hand_back(); abandoned: abandon(); close()
      |  begin(), called by _arrive(), or by ClusterLimiter.start() if early
      v
    begun         the call may start; in PendingSends until it is sent
      |            -- not used after all: hand_back()
      |  mark_sent(), or within begin() if not early
      v
    marked sent   a delay is corrected; its concurrency slot is renewed: renew()
      |            -- the process dies: the slot's lease expires in the backend
      |  settle()
      v
    settled       not in _live any more; Corrections.fill() adds the correction to an exchange

If ``pause`` or ``begin`` takes away a permit, a waiter that is not early goes back into the queue.
An early waiter already has its permit; the caller learns from ``begin`` that the permit is void,
and enters a new request. A queued waiter leaves the queue in ``abandon`` if the waiter's caller is
cancelled or times out. ``long_waits`` may also send away a waiter, with LongWait. In a bucket
without limits, ``at_once`` and ``_let_go`` make a permit whose call may start at once.

This file is over 400 lines because these states belong to one machine, which the diagram shows
completely.
"""

import asyncio
import math
import time
from collections.abc import Mapping

import structlog

from app.domain.usage import Usage
from app.rate_limits.base import Exchange, Grant, LimitRequest, Permit, Reply, Sight
from app.rate_limits.blocked_by import BlockedBy
from app.rate_limits.corrections import FLUSH_S, Corrections
from app.rate_limits.exchange_timer import ExchangeTimer
from app.rate_limits.fair_queue import FairQueue, Waiter
from app.rate_limits.forecast import LimitRequests
from app.rate_limits.link import Link
from app.rate_limits.long_waits import Closed, closed_by_limits, closed_by_pause, later, send_away
from app.rate_limits.pending_sends import PendingSends
from app.rate_limits.slow_start import STEP_S, SlowStart
from app.rate_limits.statistics import Statistics
from app.rate_limits.tiers import BucketSpec

MOST_OFFERED, LEAST_OFFERED = 128, 4
#: Seconds by which a call may begin before the start of its permit. ``EARLY_S`` is usual. If one
#: request fills the bucket, ``ClusterLimiter.start`` uses ``PREPARE_S``: the client prepares the
#: call before the start, and sends the call exactly at the start.
EARLY_S, PREPARE_S = 0.0005, 0.008
#: In a bucket that one request fills, a permit is void if its call begins later than this.
STALE_S = 0.020
#: Seconds until the next exchange after an exchange that failed.
FAILED_S = 1.0

log = structlog.get_logger(__name__)


class BucketClient:
    """The waiters and permits of one bucket in this process.

    Weakness: this class has only copies of the runs' virtual times, from the last reply, and
    uses these copies to choose the requests that it offers. The backend decides the order among
    processes.

    Args:
        spec: The bucket's limits.
        link: The connection to the backend.
        totals: Statistics of all buckets, which count the events of this bucket too.
    """

    def __init__(self, spec: BucketSpec, link: Link, totals: Statistics) -> None:
        self.spec = spec
        self.statistics = Statistics(totals)
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._exchange_timer = ExchangeTimer(self._exchange, name=f"limits_{spec.bucket}")
        self._slow_start = SlowStart()
        self._queue = FairQueue(self._refresh)
        self._limit_requests = LimitRequests(link.clock)
        self._corrections = Corrections(spec)
        self._next_spec: BucketSpec | None = None
        self._live: dict[int, Permit] = {}
        self._planned: dict[int, Waiter] = {}
        self._pending_sends = PendingSends(spec)
        self._sights: dict[int, Sight] = {}
        self._spent: tuple[float, ...] = ()
        self._ids = self._exchanges = 0
        self._epoch = ""
        self._last_reply_s = -math.inf
        self._renewing = self._next_ask_known = False
        self._used: dict[str, float] = {}
        self._most = MOST_OFFERED
        self._paused: Closed | None = None
        self.blocked_by = BlockedBy()

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._queue)

    def at_once(self, request: LimitRequest) -> Permit | None:
        """Return a permit without an exchange if the bucket has no limits and no pause."""
        if not self.spec.unlimited or not self._slow_start.is_open or self._queue:
            return None
        self._ids += 1
        return self._open_permit(self._ids, request, time.monotonic())

    def enter(self, request: LimitRequest, *, early: bool, max_wait_s: float) -> Waiter:
        """Queue a request; the waiter's future gets the permit, or LongWait for too long a wait."""
        self._ids += 1
        waiter = Waiter(
            id=self._ids,
            request=request,
            offer=self._limit_requests.new(self._ids, request, self.spec),
            future=self._loop.create_future(),
            entered_s=time.monotonic(),
            early=early,
            max_wait_s=max_wait_s,
        )
        self._enqueue(waiter)
        send_away(self._queue, self._paused, self.spec.bucket)
        return waiter

    def abandon(self, waiter: Waiter) -> None:
        """Remove a waiter that was cancelled or timed out, and give back its permit, if any."""
        if permit := self._live.get(waiter.id):
            self.hand_back(permit)
        elif not waiter.gone:
            self._queue.leave(waiter)
            if not self._queue:
                self._exchange_timer.run_in(FLUSH_S)

    def begin(self, permit: Permit) -> bool:
        """Start the call; return False if the permit is void after a pause or a long delay."""
        waiter = self._planned.pop(permit.request_id, None)
        if waiter is None:
            return False
        now_s = time.monotonic()
        is_late = now_s - permit.starts_at_s > STALE_S
        if permit.spec.paced and is_late and not waiter.second_try:
            waiter.second_try = True
            self._give_back(permit)
            return False
        if not waiter.early:
            self._mark_sent(permit, measured=False)
        self.statistics.granted(now_s - waiter.entered_s, permit.request)
        return True

    async def mark_sent(self, permit: Permit) -> None:
        """Wait until the request may be sent, note the time, and report an unusual delay."""
        await self._pending_sends.moment_of(permit)
        if permit in self._pending_sends:
            self._sights[permit.request_id] = Sight(self._link.clock.backend_time_s(), self._spent)
            self._mark_sent(permit, measured=True)

    def settle(
        self,
        permit: Permit,
        usage: Usage | None,
        headers: Mapping[str, str],
        retry_after_s: float | None,
        *,
        throttled: bool,
        whole: bool,
    ) -> None:
        """Correct the estimate of a call that has ended; a second correction changes nothing."""
        if self._live.pop(permit.request_id, None) is None:
            return
        self._planned.pop(permit.request_id, None)
        self._pending_sends.forget(permit)
        sight = self._sights.pop(permit.request_id, Sight(permit.granted_at, permit.spent))
        if whole and usage:
            self._limit_requests.learn(permit.request, usage, self.spec)
        self._corrections.settle(permit, usage, headers, sight)
        if throttled or retry_after_s is not None:
            if throttled:
                self.statistics.count("throttled")
            self.pause(self._corrections.refuse(permit, retry_after_s, hard=throttled))
        self._exchange_timer.run_in(self._corrections.max_wait_s)

    def hand_back(self, permit: Permit) -> None:
        """Give back a permit that the caller does not use."""
        if permit.request_id in self._live:
            self._give_back(permit)
            self.statistics.count("handed_back")

    def renew(self) -> None:
        """With the next exchange, renew the concurrency slots of all permits in use."""
        if self.spec.concurrency and self._live:
            self._renewing = True
            self._exchange_timer.run_in(0.0)

    def pause(self, seconds: float) -> None:
        """Start no call for this time, and give back the permits whose calls have not started."""
        now_s = time.monotonic()
        for number, waiter in list(self._planned.items()):
            permit = self._live[number]
            if permit.starts_at_s > now_s:
                self._give_back(permit)
                if not waiter.early:
                    self._enqueue(waiter)
        self._slow_start.close_for(seconds)
        self.blocked_by.pause()
        self._paused = later(self._paused, closed_by_pause(seconds))
        send_away(self._queue, self._paused, self.spec.bucket)
        if self.spec.unlimited:
            self._let_go()

    def catch_up(self) -> None:
        """Ask the backend at once, because this process may have missed messages."""
        if self.spec.unlimited or self._queue:
            self._exchange_timer.run_in(0.0)

    def ask_in(self, delay_s: float) -> None:
        """Ask the backend within this time."""
        self._exchange_timer.run_in(delay_s)

    def reconfigure(self, spec: BucketSpec) -> None:
        """Use other limits from the next exchange on."""
        if spec != self.spec:
            self._next_spec = spec
            self._exchange_timer.run_in(0.0)

    async def flush(self) -> None:
        """Return when the backend has all corrections that exist now."""
        while self._exchange_timer.busy or self._corrections or self._renewing or self._next_spec:
            await self._exchange_timer.run_now()

    async def close(self, *, timeout_s: float) -> None:
        """Hand back the permits of calls that have not started, sign off at the backend, and stop.

        The caller must ensure that no request waits any more.
        """
        for number in list(self._planned):
            self._give_back(self._live[number])
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
                if self._epoch:
                    await self._link.exchange(self.spec, self._compose(leaving=True))
        except TimeoutError:
            log.warning("limit_corrections_lost", bucket=self.spec.bucket)
        finally:
            self._exchange_timer.stop()

    async def _exchange(self) -> None:
        try:
            message = self._compose()
            reply = await self.blocked_by.heard(self._link.exchange(self.spec, message))
            await self._learn(reply)
            self._apply(message, reply)
        except Exception:  # such as a failure of recent_use: the waiters must go on waiting
            log.exception("limit_exchange_failed", bucket=self.spec.bucket, retry_in_s=FAILED_S)
            self._queue.take_back()
            self._exchange_timer.run_in(FAILED_S)

    def _compose(self, *, leaving: bool = False) -> Exchange:
        if self._next_spec is not None:
            self._adopt(self._next_spec)
        self._exchanges += 1
        if time.monotonic() - self._last_reply_s > self.spec.ttl_s:
            self._epoch = ""  # the backend has deleted the unused bucket: this is not a flush
        message = Exchange(
            process=self._link.process,
            number=self._exchanges,
            epoch=self._epoch,
            rebuilds=self._link.rebuilds,
            used=self._used,
            leaving=leaving,
        )
        self._used = {}
        self._corrections.fill(message)
        message.overdue = self._pending_sends.overdue()
        if self._renewing:
            message.renewals = list(self._live)
            self._renewing = False
        if not self.spec.unlimited and not leaving:
            message.runs = self._queue.offer(self._most)
        return message

    async def _learn(self, reply: Reply) -> None:
        """Notice a flush of the backend, and find the earlier use if the backend asks for it."""
        self._last_reply_s = time.monotonic()
        if self._epoch and reply.epoch != self._epoch:
            log.warning("limits_flushed", bucket=self.spec.bucket)
            self._renewing = bool(self.spec.concurrency and self._live)
        self._epoch = reply.epoch
        if reply.rebuild:
            self._used = await self._link.recent_use(self.spec, reply.rebuild)
            self._exchange_timer.run_in(0.0)

    def _apply(self, message: Exchange, reply: Reply) -> None:
        self._slow_start.know()
        self._corrections.careful = reply.careful
        self._spent = reply.spent
        if reply.paused_s > 0:
            self.pause(reply.paused_s)
        self._queue.set_shares([run.run_id for run in message.runs], reply.shares)
        for grant in reply.grants:
            self._granted(grant, reply)
        self._queue.take_back()
        if offered := sum(len(run.requests) for run in message.runs):
            all_granted = len(reply.grants) == offered
            most = 2 * len(reply.grants) + 2
            self._most = MOST_OFFERED if all_granted else max(LEAST_OFFERED, most)
        self._next_ask_known = reply.ask_in_s is not None
        closed = later(self._paused, closed_by_limits(self.spec, reply))
        send_away(self._queue, closed, self.spec.bucket)
        if self.spec.unlimited:
            self._let_go()
        elif self._queue:
            self._exchange_timer.run_in(reply.ask_in_s or 0.0)
        self._exchange_timer.run_in(FLUSH_S if self._renewing else self._corrections.max_wait_s)

    def _granted(self, grant: Grant, reply: Reply) -> None:
        waiter = self._queue.take(grant.id)
        assert waiter is not None, "the backend grants only what was offered"
        granted_at = reply.time_s + grant.delay_s
        permit = Permit(
            bucket=self.spec.bucket,
            request_id=grant.id,
            request=waiter.request,
            spec=self.spec,
            taken=waiter.offer.amounts,
            granted_at=granted_at,
            starts_at_s=self._link.clock.to_local_s(granted_at),
            spent=reply.spent,
        )
        self._live[grant.id] = permit
        if waiter.gone or waiter.future.done():
            self._give_back(permit)
            return
        late_in_s = self._pending_sends.expect(permit)
        self._queue.leave(waiter)
        self._planned[grant.id] = waiter
        if waiter.early:
            if late_in_s < math.inf:
                self._loop.call_later(late_in_s, self._look_after, permit)
            waiter.future.set_result(permit)
        else:
            self._arrive(permit)

    def _arrive(self, permit: Permit) -> None:
        """Let the waiter start its call at the time of its permit."""
        waiter = self._planned.get(permit.request_id)
        if waiter is None or self._live.get(permit.request_id) is not permit:
            return  # the permit was taken away
        lead_s = permit.starts_at_s - time.monotonic()
        if lead_s > EARLY_S:  # this is also true if the timer fired early
            self._loop.call_later(lead_s, self._arrive, permit)
        elif self.begin(permit):
            if not waiter.future.done():
                waiter.future.set_result(permit)
        else:
            self._enqueue(waiter)

    def _look_after(self, permit: Permit) -> None:
        """Report a call that should have been sent by now but has not been sent."""
        if permit in self._pending_sends and not self._pending_sends.reported:
            self._exchange_timer.run_in(0.0)

    def _mark_sent(self, permit: Permit, *, measured: bool) -> None:
        """Note that a call was sent; if the call is late, report the delay to the backend."""
        late = self._pending_sends.mark_sent(permit, measured=measured)
        if late is not None:
            self._corrections.note_delay(permit, *late)
        if late is not None or self._pending_sends.reported:
            self._exchange_timer.run_in(0.0 if self.spec.paced else FLUSH_S)

    def _give_back(self, permit: Permit) -> None:
        del self._live[permit.request_id]
        self._pending_sends.forget(permit)
        self._planned.pop(permit.request_id, None)
        self._corrections.give_back(permit)
        self._exchange_timer.run_in(self._corrections.max_wait_s)

    def _enqueue(self, waiter: Waiter) -> None:
        waiter.gone = False
        if not self._queue:
            self.blocked_by.forget()
        first = self._queue.enter(waiter)
        if first or not self._next_ask_known:
            self._exchange_timer.run_in(0.0)

    def _let_go(self) -> None:
        """Give permits to the waiters of an unlimited bucket.

        Usually all waiters get their permits at once. After a pause, growing groups of waiters get
        permits.
        """
        if not self.spec.unlimited or not self._queue:
            return
        count = self._slow_start.let_go(len(self._queue))
        runs = self._queue.offer(count) if count else []
        for number in [request.id for run in runs for request in run.requests]:
            waiter = self._queue.take(number)
            assert waiter is not None
            self._queue.leave(waiter)
            waiter.future.set_result(self._open_permit(number, waiter.request, waiter.entered_s))
        if self._queue:
            self._loop.call_later(max(self._slow_start.opens_in_s, STEP_S), self._let_go)

    def _open_permit(self, number: int, request: LimitRequest, entered_s: float) -> Permit:
        now_s = time.monotonic()
        permit = Permit(
            bucket=self.spec.bucket,
            request_id=number,
            request=request,
            spec=self.spec,
            taken=(),
            granted_at=self._link.clock.backend_time_s(),
            starts_at_s=now_s,
        )
        self._live[number] = permit
        self.statistics.granted(now_s - entered_s, request)
        return permit

    def _refresh(self, waiter: Waiter) -> None:
        waiter.offer = self._limit_requests.refreshed(waiter.offer, waiter.request, self.spec)

    def _adopt(self, spec: BucketSpec) -> None:
        self.spec, self._next_spec, self._spent = spec, None, ()
        self._sights.clear()
        self._corrections.reconfigure(spec)
        self._pending_sends.reconfigure(spec)
        self._slow_start.forget()
        for waiter in self._queue.waiters():
            waiter.offer = self._limit_requests.again(waiter.offer, waiter.request, spec)

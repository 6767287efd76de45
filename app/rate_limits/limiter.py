"""The limiter of a process; the limiters of all processes share each provider's limits.

``acquire`` waits for a permit. ``settle`` reports the real usage of the call. A limiter runs on one
asyncio loop. docs/rate-limits.md describes how the parts work together.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Any

from redis.asyncio import Redis

from app.domain.policies import RateLimitConfig
from app.domain.usage import Usage
from app.rate_limits.backends.redis import RedisBackend
from app.rate_limits.base import LimiterBackend, LimitRequest, News, Permit
from app.rate_limits.bucket_client import EARLY_S, PREPARE_S, BucketClient
from app.rate_limits.charges import too_large
from app.rate_limits.fair_queue import Waiter
from app.rate_limits.link import Link, RecentUse
from app.rate_limits.statistics import Statistics
from app.rate_limits.tiers import spec_of
from app.telemetry.logging import of_nobody

#: A function that gets a provider and a model, and returns the name and limits of the bucket.
Resolve = Callable[[str, str], tuple[str, RateLimitConfig]]
CLOSE_S = 2.0


class _Moved(Exception):
    """The model now belongs to another bucket, so the request has to wait for that bucket."""


class ClusterLimiter:
    """Grants permits for calls under limits that all processes share.

    Weakness: limited calls wait while the backend is away. Also, a process needs a round trip for
    each batch of requests. For one process and one configuration ``RateLimiter`` is simpler.

    Args:
        backend: The backend that holds the buckets; a Redis client means ``RedisBackend`` with
            this client.
        resolve: Returns the bucket and the limits of a provider's model.
        recent_use: Function that gets a bucket and a number of seconds, and returns the requests
            and the tokens of the bucket in that time. After a flush of Redis, the limiter calls
            this function to find the use of the last hour and day. If the argument is None, a flush
            loses this use.
        cautious: Whether half of each limit per minute is kept back until the provider's first
            answer, which shows the real limit. This caution costs nothing; see docs/rate-limits.md.

    Example:
        limiter = ClusterLimiter(redis, table.resolve)
        permit = await limiter.acquire(request)
        try:
            response = await client.complete(...)
        except BaseException:
            limiter.settle(permit, usage=None)
            raise
        limiter.settle(permit, usage=response.usage, headers=response.headers)
    """

    def __init__(
        self,
        backend: LimiterBackend | Redis,
        resolve: Resolve,
        *,
        recent_use: RecentUse | None = None,
        cautious: bool = False,
    ) -> None:
        self._backend = RedisBackend(backend) if isinstance(backend, Redis) else backend
        self._resolve = resolve
        self._cautious = cautious
        self._link = Link(self._backend, token_hex(6), recent_use)
        self._totals = Statistics()
        self._buckets: dict[str, BucketClient] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._waiting: dict[Waiter, BucketClient] = {}
        self._listening: asyncio.Task[None] | None = None

    def refusal(self, request: LimitRequest) -> str | None:
        """Return the reason why a call can never fit into its limits; None if the call fits."""
        spec = self._bucket(request).spec
        found = too_large(request, spec)
        if found is None:
            return None
        tier, amount = found
        return (
            f"the call counts as about {amount:,.0f} tokens, and {spec.bucket} has "
            f"{tier.name}_per_minute {tier.limit:,.0f}: shorten the prompt, lower max_tokens, or "
            "raise the limit"
        )

    async def acquire(
        self,
        request: LimitRequest,
        timeout_s: float | None = None,
        *,
        early: bool = False,
        max_wait_s: float = math.inf,
    ) -> Permit:
        """Wait until the call may start.

        Args:
            request: The call.
            timeout_s: Longest wait in seconds; None means that the wait has no limit.
            early: Whether to return up to 50 ms before the start; the caller then prepares the call
                and awaits ``start``.
            max_wait_s: Longest wait that the caller accepts if the length of the wait is known:
                during a pause, or while a limit per hour or day is used up.

        Returns:
            The permit, which the caller must settle or hand back.

        Raises:
            TimeoutError: If no permit is granted in time; nothing was taken from the limits.
            LongWait: If no permit can be granted within ``max_wait_s``; nothing was taken from the
                limits.
        """
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        while True:
            bucket = self._bucket(request)
            permit = bucket.at_once(request)
            if permit is not None:
                return permit
            waiter = bucket.enter(request, early=early, max_wait_s=max_wait_s)
            self._waiting[waiter] = bucket
            timer = None
            if timeout_s is not None and deadline_s is not None:
                timer = loop.call_at(deadline_s, self._time_out, bucket, waiter, timeout_s)
            try:
                return await waiter.future
            except _Moved:
                continue
            except asyncio.CancelledError:
                bucket.abandon(waiter)
                raise
            finally:
                del self._waiting[waiter]
                if timer is not None:
                    timer.cancel()

    def blocked_by(self, request: LimitRequest) -> str:
        """Return the bucket and the limit for which a call like ``request`` last waited.

        An example is ``openai/default requests_per_minute``.
        """
        bucket = self._bucket(request)
        return bucket.blocked_by.label(bucket.spec)

    async def start(self, permit: Permit) -> bool:
        """Wait for the start of an early permit.

        Returns:
            Whether the call may start now. The result is False if the bucket is paused or if the
            start is long over. In this case the permit is already given back, and the caller must
            acquire another permit.
        """
        bucket = self._buckets[permit.bucket]
        if permit.spec.unlimited:
            return True
        early_s = PREPARE_S if permit.spec.paced else EARLY_S
        while True:
            lead_s = permit.starts_at_s - time.monotonic()
            if lead_s <= early_s:
                return bucket.begin(permit)
            await asyncio.sleep(lead_s - early_s)  # may end a little early, so the loop looks again

    async def mark_sent(self, permit: Permit) -> None:
        """Wait until the caller may send the request; usually the caller may send it at once.

        If the request is late, later requests leave room for the late request.
        """
        await self._buckets[permit.bucket].mark_sent(permit)

    def settle(
        self,
        permit: Permit,
        *,
        usage: Usage | None,
        headers: Mapping[str, str] = {},
        retry_after_s: float | None = None,
        throttled: bool = False,
        whole: bool = True,
    ) -> None:
        """Report the end of a call; a second report changes nothing.

        The report is sent within milliseconds, in one exchange with other reports.

        Args:
            permit: The call's permit.
            usage: Tokens of the call. None means that the tokens are unknown, so the estimate
                stays. Zero tokens mean that the call never reached the provider.
            headers: The answer's headers.
            retry_after_s: Length of the pause that the provider asks for, in seconds; None if the
                provider asks for no pause.
            throttled: Whether the answer was a 429 of the temporary kind.
            whole: Whether the usage belongs to a whole answer; an answer that broke off does not
                show how long answers usually are.
        """
        bucket = self._buckets[permit.bucket]
        bucket.settle(permit, usage, headers, retry_after_s, throttled=throttled, whole=whole)

    def hand_back(self, permit: Permit) -> None:
        """Give back all amounts of a permit that was not used."""
        self._buckets[permit.bucket].hand_back(permit)

    async def renew(self) -> None:
        """Keep the concurrency slots of the calls in flight; call this method every few seconds."""
        for bucket in self._buckets.values():
            bucket.renew()

    async def reconfigure(self) -> None:
        """Ask ``resolve`` again; limits that have changed keep their levels.

        If a model has moved to another bucket, the model's waiting requests move to that bucket.
        """
        for provider, model in list(self._names):
            self._enter_name(provider, model)
        for waiter, bucket in list(self._waiting.items()):
            key = waiter.request.provider, waiter.request.model
            if self._buckets[self._names[key]] is not bucket and not waiter.future.done():
                bucket.abandon(waiter)
                waiter.future.set_exception(_Moved())

    async def flush(self) -> None:
        """Return when the backend has every correction."""
        for bucket in list(self._buckets.values()):
            await bucket.flush()

    async def close(self) -> None:
        """Hand back the permits of calls that have not started, and stop."""
        for bucket in self._buckets.values():
            await bucket.close(timeout_s=CLOSE_S)
        if self._listening is not None:
            self._listening.cancel()
        await self._backend.close()

    def get_statistics(self) -> dict[str, Any]:
        """Return this process's counts and wait times, in total and by bucket (``buckets``)."""
        waiting = sum(bucket.waiting for bucket in self._buckets.values())
        return self._totals.as_dict(waiting=waiting) | {
            "exchanges": self._link.exchanges,
            "buckets": {
                name: bucket.statistics.as_dict(waiting=bucket.waiting)
                for name, bucket in self._buckets.items()
            },
        }

    async def snapshot(self) -> list[dict[str, Any]]:
        """Return the cluster's live buckets.

        Returns:
            One dict per bucket with these keys:

            - ``bucket``: the name of the bucket,
            - ``tiers``: a list of dicts with ``tier``, ``enforcement``, ``limit``, ``level``,
              ``capacity``, ``rate`` per second and ``learned_limit``,
            - ``concurrency``: 0 means unlimited,
            - ``waiting``, ``in_flight``, ``paused_s`` and ``next_free_s``,
            - ``ramp``: the share of the rate that applies after a pause.

        Raises:
            ServiceUnavailable: If the backend cannot be reached.
        """
        return await self._backend.snapshot()

    def _bucket(self, request: LimitRequest) -> BucketClient:
        key = request.provider, request.model
        name = self._names.get(key)
        if name is None:
            name = self._enter_name(*key)
            if self._listening is None:
                listen = self._backend.listen(self._link.process, self._hear)
                self._listening = asyncio.create_task(
                    listen, name="limit_listen", context=of_nobody()
                )
        return self._buckets[name]

    def _enter_name(self, provider: str, model: str) -> str:
        """Give a model's bucket its present limits, and return the name of the bucket."""
        name, config = self._resolve(provider, model)
        self._names[provider, model] = name
        spec = spec_of(name, config, cautious=self._cautious)
        if name in self._buckets:
            self._buckets[name].reconfigure(spec)
        else:
            self._buckets[name] = BucketClient(spec, self._link, self._totals)
        return name

    def _time_out(self, bucket: BucketClient, waiter: Waiter, timeout_s: float) -> None:
        if not waiter.future.done():
            bucket.abandon(waiter)
            bucket.statistics.count("timeouts")
            waiter.future.set_exception(
                TimeoutError(
                    f"no permit of {bucket.spec.bucket!r} within {timeout_s:g} s: allow more time, "
                    "or raise the limit if the provider's is higher"
                )
            )

    def _hear(self, news: News) -> None:
        if not news.bucket:
            for known in self._buckets.values():
                known.catch_up()
            return
        bucket = self._buckets.get(news.bucket)
        if bucket is not None and news.paused_s is not None:
            bucket.pause(news.paused_s)
        if bucket is not None and news.ask_in_s is not None:
            bucket.ask_in(news.ask_in_s)

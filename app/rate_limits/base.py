"""What the limiter's parts say to each other: requests, permits, and the exchange with a backend.

An exchange is one round trip for one bucket: it carries everything the process has to report
(corrections, renewals, waiting requests) and brings back everything it needs to know (grants, when
to ask again). The backends in ``backends`` behave alike; one test suite runs on both. The named
tuples go to exchange.lua as JSON arrays, so the order of their fields is part of its interface.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from app.domain.protocols import TokenCounting
from app.rate_limits.tiers import BucketSpec


class WaitingRequest(NamedTuple):
    """A request as a backend hears of it.

    Attributes:
        id: Unique in its process and bucket.
        priority: 1 to 10; within a run the higher goes first.
        arrival_ms: When it came, in milliseconds of the backend's clock.
        cost_s: The share of the bucket that it takes, in seconds of the scarcest tier.
        amounts: What it takes from each tier, in the order of the bucket's tiers.
    """

    id: int
    priority: int
    arrival_ms: int
    cost_s: float
    amounts: tuple[float, ...]


class WaitingRun(NamedTuple):
    """The requests of one run that a process offers.

    Attributes:
        run_id: The run.
        weight: Its share of the bucket, relative to other runs.
        waiting: Its requests that wait in this process.
        requests: The first of them.
    """

    run_id: str
    weight: float
    waiting: int
    requests: list[WaitingRequest]


class Settlement(NamedTuple):
    """The correction of one permit.

    Attributes:
        id: Id of its request.
        granted_at: Start of the call, by the backend's clock.
        amounts: What each tier gets back; empty if only the concurrency slot returns.
    """

    id: int
    granted_at: float
    amounts: tuple[float, ...]


class Observation(NamedTuple):
    """What the headers of an answer say of one tier.

    Attributes:
        position: Place of the tier in the bucket, from 0.
        limit: The provider's limit; -1 if unknown.
        remaining: What the provider had left; -1 if unknown.
        spent: The tier's total spent when the request was sent.
        sent_at: When the request was sent, by the backend's clock.
    """

    position: int
    limit: float
    remaining: float
    spent: float
    sent_at: float


class Sight(NamedTuple):
    """What a process knew when a request was sent, which dates the headers of its answer.

    Attributes:
        sent_at: When it was sent, by the backend's clock.
        spent: Totals spent per tier, as last heard.
    """

    sent_at: float
    spent: tuple[float, ...]


class Refusal(NamedTuple):
    """An answer that asks for a pause.

    Attributes:
        granted_at: Start of the refused call, by the backend's clock.
        pause_s: How long nothing is to start.
        throttled: 1 if it was a 429, which lowers the rate too; 0 if the provider was only busy.
        amounts: What the call took from each tier.
    """

    granted_at: float
    pause_s: float
    throttled: int
    amounts: tuple[float, ...]


class Delay(NamedTuple):
    """A call that was sent late.

    Attributes:
        granted_at: When it should have started, by the backend's clock.
        sent_at: When it was sent instead.
        amounts: What it took from each tier.
        overdue: Amounts of all calls of the process that had not been sent until then.
    """

    granted_at: float
    sent_at: float
    amounts: tuple[float, ...]
    overdue: tuple[float, ...]


class Grant(NamedTuple):
    """A request that may start.

    Attributes:
        id: Its id.
        delay_s: Seconds from the reply's time to the start.
    """

    id: int
    delay_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitRequest:
    """A call that asks for a permit.

    Attributes:
        provider: Provider name, such as ``openai``; with the model it leads to the bucket.
        model: Model name.
        counting: How the provider's limits count tokens, which follows from its protocol.
        run_id: The run it belongs to: runs share a bucket by weight.
        input_tokens: Tokens the prompt will probably have.
        output_tokens: Tokens the answer may have, ``max_tokens`` unless more is known.
        priority: 1 to 10; within a run the higher goes first.
        weight: The run's share of the bucket, relative to other runs.
    """

    provider: str
    model: str
    counting: TokenCounting
    run_id: str
    input_tokens: int
    output_tokens: int
    priority: int = 5
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Permit:
    """The right to make one call.

    Attributes:
        bucket: Name of the bucket it was taken from.
        request_id: Unique in its process and bucket.
        request: The call.
        spec: The bucket's limits at the time of the grant.
        taken: What was taken from each tier of ``spec``, in their order.
        granted_at: When the call may start, by the backend's clock; seconds since the epoch.
        starts_at_s: The same as ``time.monotonic()``.
        spent: Totals spent per tier at the grant.
    """

    bucket: str
    request_id: int
    request: LimitRequest
    spec: BucketSpec
    taken: tuple[float, ...]
    granted_at: float
    starts_at_s: float
    spent: tuple[float, ...] = ()


@dataclass(kw_only=True, slots=True)
class Exchange:
    """What a process reports to a backend about one bucket.

    Attributes:
        process: Unique name of the process.
        number: Counts this process's exchanges for the bucket; a repeated number is answered as
            the first time and changes nothing.
        epoch: The bucket's epoch as last heard, or empty: another one means that it was flushed.
        rebuilds: Whether the process can say what was used before the bucket was created.
        used: Use in the last period by tier name, the answer to ``Reply.rebuild``.
        leaving: Whether the process ends.
        answered: Whether the provider has answered a call since the process last said so.
        settlements: Corrections of permits.
        delays: Calls that were sent late.
        overdue: Amounts of calls that have not been sent, if one of them is late; else empty.
        observations: What providers' headers say.
        refusals: 429s, and other answers that ask for a pause.
        renewals: Ids of permits in use.
        runs: The runs that wait, with their first requests.
    """

    process: str
    number: int
    epoch: str = ""
    rebuilds: bool = False
    used: dict[str, float] = field(default_factory=dict)
    leaving: bool = False
    answered: bool = False
    settlements: list[Settlement] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    overdue: tuple[float, ...] = ()
    observations: list[Observation] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    renewals: list[int] = field(default_factory=list)
    runs: list[WaitingRun] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Reply:
    """What a backend answers.

    Attributes:
        time_s: The backend's clock.
        epoch: The bucket's epoch.
        grants: Requests that may start.
        ask_in_s: Seconds until the process should ask again; None when no request waits.
        paused_s: Seconds left of a pause, or 0.
        careful: Whether the bucket waits for the provider's first answer.
        rebuild: Tiers whose earlier use must be reported before anything is granted.
        spent: Totals spent per tier.
        shares: The runs' virtual times, in the order asked, and last the bucket's own.
        long_s: Seconds until the limits per hour and day have room for one request.
        long_tier: The one of these tiers that has room last; empty if all have room now.
        blocked_by: What the process's first request waits for: the name of a tier, ``concurrency``
            or ``pause``; empty if none waits.
    """

    time_s: float
    epoch: str
    grants: list[Grant]
    ask_in_s: float | None
    paused_s: float
    careful: bool
    rebuild: list[str]
    spent: tuple[float, ...]
    shares: list[float]
    long_s: float = 0.0
    long_tier: str = ""
    blocked_by: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """A message from another process: ask again after ``ask_in_s``, or stop for ``paused_s``.

    Both are None when messages may have been missed: then every bucket has to be asked again.
    """

    bucket: str
    ask_in_s: float | None = None
    paused_s: float | None = None


class LimiterBackend(Protocol):
    """Holds the buckets.

    Every method may raise ``ServiceUnavailable``; then it is not known whether it took effect.
    """

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """Apply the process's message, then grant the requests that may start soon."""

    async def listen(self, process: str, on_news: Callable[[News], None]) -> None:
        """Call back for news until ``close``; returns once listening."""

    async def snapshot(self) -> list[dict[str, Any]]:
        """Return the live buckets, as ``ClusterLimiter.snapshot`` does."""

    async def close(self) -> None:
        """Stop listening."""

"""What the limiter's parts say to each other: requests, permits, and the exchange with a backend.

An exchange is one round trip for one bucket: it carries everything the process has to tell
(corrections, renewals, who waits) and brings back everything it needs to know (grants, when to ask
again). The backends in ``redis`` and ``memory`` behave alike; one test suite runs on both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from app.rate_limits.tiers import BucketSpec

#: Id, priority, arrival (milliseconds, the backend's clock), cost (seconds of the bucket), and the
#: amount for each tier, in the order of the bucket's tiers.
WaitingRequest: TypeAlias = tuple[int, int, int, float, tuple[float, ...]]
#: Run, weight, requests waiting in this process, and the first of them.
WaitingRun: TypeAlias = tuple[str, float, int, list[WaitingRequest]]
#: Id, start (backend's clock), and what each tier gets back (may be empty).
Settlement: TypeAlias = tuple[int, float, tuple[float, ...]]
#: Tier's index, limit and remaining as the provider's headers say (-1: unknown), the tier's spent
#: total when the request was granted, and the request's start (backend's clock).
Observation: TypeAlias = tuple[int, float, float, float, float]
#: When a request set out (backend's clock), and the tiers' spent totals then: dates its headers.
Sight: TypeAlias = tuple[float, tuple[float, ...]]
#: Start of the refused request, seconds to pause, 1 if it was a 429 (0: only busy), its amounts.
Refusal: TypeAlias = tuple[float, float, int, tuple[float, ...]]
#: Start of a call, when it set out instead (backend's clock), its amounts, and the amounts of all
#: calls of the process that had not set out until then.
Delay: TypeAlias = tuple[float, float, tuple[float, ...], tuple[float, ...]]
#: Id, and seconds from the reply's time to the start.
Grant: TypeAlias = tuple[int, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitRequest:
    """A call that wants to be made.

    Attributes:
        provider: Provider name, such as ``openai``.
        model: Model name.
        run_id: The run it belongs to: runs share a bucket by weight.
        input_tokens: Tokens the prompt will probably have.
        output_tokens: Tokens the answer may have, ``max_tokens`` unless more is known.
        priority: 1 to 10; within a run the higher goes first.
        weight: The run's share of the bucket, relative to other runs.
    """

    provider: str
    model: str
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
        request: What was asked for.
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
    """What a process tells a backend about one bucket.

    Attributes:
        process: Unique name of the process.
        number: Counts this process's exchanges for the bucket; a repeated number is answered as
            the first time and changes nothing.
        epoch: The bucket's epoch as last heard, or empty: another one means that it was flushed.
        rebuilds: Whether the process can say what was used before the bucket was created.
        used: Use in the last period by tier name, the answer to ``Reply.rebuild``.
        leaving: The process ends.
        answered: Whether the provider has answered a call since the process last said so.
        settlements: Corrections of permits.
        delays: Calls that set out late.
        overdue: Amounts of calls that have not set out, if one of them is late; else empty.
        observations: What providers' headers say.
        refusals: 429s, and other answers that ask for a pause.
        renewals: Ids of permits in use.
        runs: Who waits.
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
        ask_in_s: Seconds until the process should ask again; None when nobody waits.
        paused_s: Seconds left of a pause, or 0.
        careful: Whether the bucket waits for the provider's first answer.
        rebuild: Tiers whose earlier use must be told before anything is granted.
        spent: Totals spent per tier.
        shares: The runs' virtual times, in the order asked, and last the bucket's own.
        long_s: Seconds until the limits per hour and day have room for one request.
        long_tier: The one of them that does last; empty if all have room.
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
    """What other processes cause: ask again after ``ask_in_s``, or stop for ``paused_s``.

    Both are None when messages may have been missed: then everything has to be asked anew.
    """

    bucket: str
    ask_in_s: float | None = None
    paused_s: float | None = None


class LimiterBackend(Protocol):
    """Holds the buckets; every method may raise ``ServiceUnavailable``, then nothing is known."""

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """Apply what the process says, then grant what may start soon."""
        ...

    async def listen(self, process: str, on_news: Callable[[News], None]) -> None:
        """Call back for news until ``close``; returns once listening."""
        ...

    async def snapshot(self) -> list[dict[str, Any]]:
        """The live buckets, as ``ClusterLimiter.snapshot`` returns them."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...

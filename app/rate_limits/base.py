"""The values that the limiter's parts exchange: requests, permits, and a backend's messages.

An exchange is one round trip for one bucket. The process sends everything that it has to report:
corrections, renewals, waiting requests. The backend returns everything that the process needs to
know: grants, the time of the next exchange. The backends in ``backends`` behave alike, and one test
suite runs on both backends. The named tuples go to exchange.lua as JSON arrays, so the order of the
fields in a tuple is part of the script's interface.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from app.domain.protocols import TokenCounting
from app.rate_limits.tiers import BucketSpec


class WaitingRequest(NamedTuple):
    """A waiting request, in the form that a process sends to a backend.

    Attributes:
        id: Number of the request, unique in the process and the bucket.
        priority: Priority from 1 to 10; within a run, a higher number goes first.
        arrival_ms: Time at which the request arrived, in milliseconds of the backend's clock.
        cost_s: The share of the bucket that the request takes, in seconds of the scarcest tier.
        amounts: The amount that the request takes from each tier, in the order of the bucket's
            tiers.
    """

    id: int
    priority: int
    arrival_ms: int
    cost_s: float
    amounts: tuple[float, ...]


class WaitingRun(NamedTuple):
    """The requests of one run that a process offers to a backend.

    Attributes:
        run_id: Id of the run.
        weight: The run's share of the bucket, relative to other runs.
        waiting: Number of the run's requests that wait in this process.
        requests: The first of these requests.
    """

    run_id: str
    weight: float
    waiting: int
    requests: list[WaitingRequest]


class Settlement(NamedTuple):
    """The correction of one permit.

    Attributes:
        id: Id of the permit's request.
        granted_at: Start of the call, by the backend's clock.
        amounts: The amount that each tier gets back; empty if only the concurrency slot becomes
            free.
    """

    id: int
    granted_at: float
    amounts: tuple[float, ...]


class Observation(NamedTuple):
    """The facts about one tier in the headers of an answer.

    Attributes:
        position: Position of the tier among the bucket's tiers, counted from 0.
        limit: The provider's limit; -1 if unknown.
        remaining: The amount that was left at the provider; -1 if unknown.
        spent: The total that was spent in the tier when the request was sent.
        sent_at: Time at which the request was sent, by the backend's clock.
    """

    position: int
    limit: float
    remaining: float
    spent: float
    sent_at: float


class Sight(NamedTuple):
    """The knowledge of a process at the time when it sent a request.

    The backend uses this knowledge to find the time to which the headers of the answer belong.

    Attributes:
        sent_at: Time at which the request was sent, by the backend's clock.
        spent: Total that was spent in each tier, from the backend's last reply.
    """

    sent_at: float
    spent: tuple[float, ...]


class Refusal(NamedTuple):
    """An answer that asks for a pause.

    Attributes:
        granted_at: Start of the refused call, by the backend's clock.
        pause_s: Seconds during which no call may start.
        throttled: 1 if the answer was a 429, which lowers the rate too; 0 if the provider was only
            busy.
        amounts: The amount that the call took from each tier.
    """

    granted_at: float
    pause_s: float
    throttled: int
    amounts: tuple[float, ...]


class Delay(NamedTuple):
    """A call that was sent late.

    Attributes:
        granted_at: Time at which the call should have started, by the backend's clock.
        sent_at: Time at which the call was sent, by the same clock.
        amounts: The amount that the call took from each tier.
        overdue: Amounts of all calls that the process had not sent before ``sent_at``.
        settled: Number of settlements in the same message that came before ``sent_at``.
    """

    granted_at: float
    sent_at: float
    amounts: tuple[float, ...]
    overdue: tuple[float, ...]
    settled: int


class Grant(NamedTuple):
    """A request that may start.

    Attributes:
        id: Id of the request.
        delay_s: Seconds from the reply's time to the start of the call.
    """

    id: int
    delay_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitRequest:
    """A call that asks for a permit.

    Attributes:
        provider: Provider name, such as ``openai``; provider and model determine the bucket.
        model: Model name.
        counting: The rules for counting tokens against the provider's limits; the protocol
            determines these rules.
        run_id: Id of the call's run, because runs share a bucket by weight.
        input_tokens: Tokens that the prompt will probably have.
        output_tokens: Largest number of tokens that the answer can have: ``max_tokens``, unless a
            better number is known.
        priority: Priority from 1 to 10; within a run, a higher number goes first.
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
        bucket: Name of the bucket that granted the permit.
        request_id: Number of the request, unique in the process and the bucket.
        request: The call.
        spec: The bucket's limits at the time of the grant.
        taken: The amount that was taken from each tier, in the order of the tiers of ``spec``.
        granted_at: Time at which the call may start, by the backend's clock, in seconds since the
            epoch.
        starts_at_s: The same time by the clock of ``time.monotonic()``.
        spent: Total that was spent in each tier until the time of the grant.
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
    """The message that a process sends to a backend about one bucket.

    Attributes:
        process: Unique name of the process.
        number: Number of this exchange among the process's exchanges for the bucket; if a number
            is repeated, the backend returns the first reply again and changes nothing.
        epoch: The bucket's epoch from the last reply, or empty. If the backend has another epoch,
            the bucket was flushed.
        rebuilds: Whether the process can report the use that came before the bucket's creation.
        used: For each tier that ``Reply.rebuild`` named, by tier name: the use in the last period.
        leaving: Whether the process ends.
        answered: Whether the provider has answered a call since the last exchange that reported an
            answer.
        settlements: Corrections of permits.
        delays: Calls that were sent late.
        overdue: Amounts of the calls that have not been sent; empty if none of these calls is late.
        observations: Facts from the headers of the provider's answers.
        refusals: 429s, and other answers that ask for a pause.
        renewals: Ids of the permits in use.
        runs: The runs with waiting requests, each with its first requests.
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
    """The reply of a backend to an exchange.

    Attributes:
        time_s: Time of the backend's clock.
        epoch: The bucket's epoch.
        grants: Requests that may start.
        ask_in_s: Seconds until the process should ask again; None when no request waits.
        paused_s: Seconds until the end of the pause; 0 if the bucket is not paused.
        careful: Whether the bucket waits for the provider's first answer.
        rebuild: Tiers whose earlier use a process must report before the bucket grants a request.
        spent: Total that was spent in each tier.
        shares: The virtual times of the runs in the message, in the order of these runs; the last
            number is the virtual time of the bucket.
        long_s: Seconds until the limits per hour and per day have room for one request.
        long_tier: Name of the tier that has room last, among the limits per hour and per day; empty
            if all of these limits have room now.
        blocked_by: The reason why the process's first request waits: the name of a tier,
            ``concurrency`` or ``pause``; empty if no request waits.
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

    If this process may have missed messages, ``bucket`` is empty and both times are None; the
    process then has to ask the backend about every bucket again.
    """

    bucket: str
    ask_in_s: float | None = None
    paused_s: float | None = None


class LimiterBackend(Protocol):
    """Holds the buckets.

    Every method may raise ``ServiceUnavailable``; the caller then does not know whether the call
    took effect.
    """

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """Apply the process's message, then grant the requests that may start soon."""

    async def listen(self, process: str, on_news: Callable[[News], None]) -> None:
        """Begin to call ``on_news`` with each message; return when the backend listens."""

    async def snapshot(self) -> list[dict[str, Any]]:
        """Return the live buckets, as ``ClusterLimiter.snapshot`` does."""

    async def close(self) -> None:
        """Stop listening."""

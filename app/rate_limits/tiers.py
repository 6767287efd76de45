"""A bucket's limits in the form for the backends: one tier per limit, with safety margins.

The provider counts a request when the request arrives. The bucket counts the request when the
request starts. The time between start and arrival varies. A bucket's capacity is therefore a little
below the provider's capacity. This margin costs the difference once per burst. The bucket's rate is
also a little below the provider's rate, because clocks differ. If a bucket has no capacity to spare
(burst 1), its rate is even lower.
"""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import orjson

from app.domain.policies import RateLimitConfig

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0

#: A request is granted at most this long before the request may start.
HORIZON_S = 0.05
#: Amount, in seconds of the bucket, that a process may take in one exchange although other
#: processes wait.
QUANTUM_S = 0.02
#: A process that waits behind other processes asks again after this time, in case a message was
#: lost.
SAFETY_POLL_S = 1.0
#: A process that asks this many seconds too late loses its place in the order.
LATE_S = 0.3
#: A concurrency slot becomes free this long after its last renewal.
LEASE_S = 15.0

_RATE_MARGIN = 0.003
_JITTER_SHARE, _JITTER_LEAST_S, _JITTER_MOST_S = 0.05, 0.02, 0.2
_PACING_MARGIN = 0.025
_PACING_JITTER_S = 0.001
_SLOTS = 200
_WINDOW_MARGIN_S = 0.05
_BURST_SHARE, _BURST_MAX_S = 0.05, 0.6
_TTL_FACTOR, _TTL_LEAST_S, _TTL_MOST_S = 1.1, 600.0, 10 * DAY_S
_TOKEN_ROUNDING = 1000
_TWO_REQUESTS = 2
_LEAST_SLACK_S, _LATE_S = 0.004, 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """One limit.

    Attributes:
        name: ``requests``, ``requests_per_hour``, ``requests_per_day``, ``tokens``,
            ``input_tokens`` or ``output_tokens``. If the name has no ``hour`` or ``day``, the limit
            is per minute.
        kind: ``bucket`` or ``window``.
        limit: Requests or tokens per period, as configured.
        period_s: Length of the period in seconds.
        capacity: Amount that may be used at once, after the margin is deducted.
        rate: Refill per second, after the margin is deducted.
        spacing_s: Least time between starts per unit of amount, so that the requests of a burst do
            not all start at the same moment.
        window_s: Seconds for which a unit counts in a window, margin included; 0 for a bucket.
        slot_s: Seconds of one slot, the resolution of a window; 0 for a bucket.
        slack_s: Seconds by which a request may be late without harm, because the margins cover
            these seconds.
        tolerance: Difference by which the provider's level may be below the bucket's level before
            the bucket's level is lowered.
    """

    name: str
    kind: Literal["bucket", "window"]
    limit: float
    period_s: float
    capacity: float
    rate: float
    spacing_s: float
    window_s: float
    slot_s: float
    slack_s: float
    tolerance: float

    @property
    def in_requests(self) -> bool:
        """Whether the tier counts requests, not tokens."""
        return self.name.startswith("requests")

    @property
    def label(self) -> str:
        """The tier's name with its period, as in the configuration: ``requests_per_minute``."""
        return self.name if "_per_" in self.name else f"{self.name}_per_minute"

    @property
    def is_short(self) -> bool:
        """Whether the tier is a limit per minute."""
        return self.period_s < HOUR_S


@dataclass(frozen=True, kw_only=True)
class BucketSpec:
    """All limits of a bucket.

    Attributes:
        bucket: Name of the bucket.
        tiers: The limits on requests and tokens.
        concurrency: Largest number of requests in flight at once; 0 means unlimited.
        cautious: Whether half of each limit per minute is kept back until the provider's first
            answer.
        ttl_s: Seconds without use after which the bucket is full again and may be deleted.
    """

    bucket: str
    tiers: tuple[Tier, ...]
    concurrency: int
    cautious: bool
    ttl_s: float

    @property
    def unlimited(self) -> bool:
        """Whether only a pause can make a request wait."""
        return not self.tiers and not self.concurrency

    @property
    def paced(self) -> bool:
        """Whether one request fills the request bucket."""
        return self.interval_s > 0

    @cached_property
    def interval_s(self) -> float:
        """Least time between two requests if one request fills the request bucket; else 0."""
        for tier in self.tiers:
            if tier.name == "requests" and tier.kind == "bucket" and tier.capacity < _TWO_REQUESTS:
                return 1 / tier.rate
        return 0.0

    @cached_property
    def on_time_s(self) -> float:
        """Seconds after which an unsent call is late; the margins cover shorter delays."""
        slack_s = min((tier.slack_s for tier in self.tiers if tier.is_short), default=math.inf)
        return min(slack_s / 4, _LATE_S)

    @cached_property
    def wire(self) -> bytes:
        """The spec in the form that the Lua scripts read."""
        values: dict[str, Any] = {
            "bucket": self.bucket,
            "tiers": [_as_sent(tier) for tier in self.tiers],
            "concurrency": self.concurrency,
            "cautious": self.cautious,
            "ttl_s": self.ttl_s,
            "horizon_s": HORIZON_S,
            "quantum_s": QUANTUM_S,
            "safety_poll_s": SAFETY_POLL_S,
            "late_s": LATE_S,
            "lease_s": LEASE_S,
        }
        return orjson.dumps(values)


def spec_of(bucket: str, config: RateLimitConfig, *, cautious: bool = False) -> BucketSpec:
    """Build the limits of a bucket from its name and configuration."""
    burst = config.burst or max(1, (config.requests_per_minute or 0) // 60)
    windowed = config.enforcement == "window"
    tiers = []
    for name, limit, capacity in (
        ("requests", config.requests_per_minute, burst),
        ("tokens", config.tokens_per_minute, config.tokens_per_minute),
        ("input_tokens", config.input_tokens_per_minute, config.input_tokens_per_minute),
        ("output_tokens", config.output_tokens_per_minute, config.output_tokens_per_minute),
    ):
        if limit is not None and capacity is not None:
            tier = _window if windowed else _bucket
            tiers.append(tier(name, limit, MINUTE_S, limit if windowed else capacity))
    for name, limit, period_s in (
        ("requests_per_hour", config.requests_per_hour, HOUR_S),
        ("requests_per_day", config.requests_per_day, DAY_S),
    ):
        if limit is not None:
            tiers.append(_bucket(name, limit, period_s, limit))
    full_s = max((max(tier.capacity / tier.rate, tier.window_s) for tier in tiers), default=0.0)
    return BucketSpec(
        bucket=bucket,
        tiers=tuple(tiers),
        concurrency=config.concurrent_requests or 0,
        cautious=cautious,
        ttl_s=min(max(full_s * _TTL_FACTOR, _TTL_LEAST_S), _TTL_MOST_S),
    )


def _as_sent(tier: Tier) -> dict[str, Any]:
    return asdict(tier) | {"short": tier.is_short, "in_requests": tier.in_requests}


def _bucket(name: str, limit: float, period_s: float, capacity: float) -> Tier:
    rate = limit / period_s
    fill_s = capacity / rate
    jitter_s = min(max(fill_s * _JITTER_SHARE, _JITTER_LEAST_S), _JITTER_MOST_S)
    spare = rate * jitter_s
    if capacity - spare >= 1:
        reduced, paced = capacity - spare, rate * (1 - _RATE_MARGIN)
    else:  # no capacity to spare: every interval between two requests is longer by the margin
        reduced = max(1.0, capacity - spare)
        paced = rate / (1 + max(_PACING_MARGIN, rate * _PACING_JITTER_S))
    return Tier(
        name=name,
        kind="bucket",
        limit=limit,
        period_s=period_s,
        capacity=reduced,
        rate=paced,
        spacing_s=min(fill_s * _BURST_SHARE, _BURST_MAX_S) / capacity,
        window_s=0.0,
        slot_s=0.0,
        slack_s=max((capacity - reduced) / rate, _LEAST_SLACK_S),
        tolerance=_tolerance(name, capacity),
    )


def _window(name: str, limit: float, period_s: float, capacity: float) -> Tier:
    return Tier(
        name=name,
        kind="window",
        limit=limit,
        period_s=period_s,
        capacity=capacity,
        rate=limit / period_s,
        spacing_s=_BURST_MAX_S / capacity,
        window_s=period_s + _WINDOW_MARGIN_S,
        slot_s=period_s / _SLOTS,
        slack_s=_WINDOW_MARGIN_S,
        tolerance=_tolerance(name, capacity),
    )


def _tolerance(name: str, capacity: float) -> float:
    rounding = 3 if name.startswith("requests") else _TOKEN_ROUNDING
    return max(rounding, 0.05 * capacity)

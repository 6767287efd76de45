"""Rate limits, similar to those of a provider. The callers pass the time; no clock is read here.

A `TokenBucket` refills continuously, and a `SlidingWindow` counts the last minute. A `LimitGroup`
counts a request on all meters of the group, or refuses the request without a count. Times are
seconds of any monotonic clock.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol

WINDOW_S = 60.0
TOKEN_COUNT = "token_count"  # noqa: S105 this is a name, not a secret
"""The name that stands for the requests that count tokens, in the place of a model."""
_TOLERANCE = 1e-6
"""Tolerance for rounding errors, in tokens and seconds.

Because of this tolerance, a client that waits exactly `retry_after_s` is admitted.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimit:
    """One limit. All models of `provider` that match the pattern `model` share this limit.

    Only the exact name `token_count` limits the requests that count tokens.

    `burst` is the capacity of the request bucket, and `token_burst` is the capacity of each token
    bucket. Without these settings, a bucket holds the amount of a full minute. For example, 60
    requests per minute with `burst=1` allow one request per second.

    Example:
        RateLimit(provider="openai", model="gpt-4o*", requests_per_minute=60, burst=1)
    """

    provider: str
    model: str = "*"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    burst: int | None = None
    token_burst: int | None = None
    enforcement: Literal["bucket", "window"] = "bucket"

    def __post_init__(self) -> None:
        if self.enforcement not in ("bucket", "window"):
            raise ValueError(f"enforcement is {self.enforcement!r}: use 'bucket' or 'window'")
        for name in ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute",
                     "output_tokens_per_minute", "burst", "token_burst"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value!r}: it must be at least 1, or absent")


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """The amounts that one request takes from each meter."""

    requests: int = 1
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterState:
    """The values of a meter for the rate-limit headers.

    `reset_s` is the number of seconds until the meter is full again.
    """

    name: str
    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Excess:
    """The limit that refused a request; if `retry_after_s` is None, the request can never fit."""

    meter: str
    limit: int
    remaining: int
    requested: int
    retry_after_s: float | None


class Meter(Protocol):
    """Counts one quantity against one limit."""

    limit: int

    def wait_s(self, amount: int, now_s: float) -> float:
        """Return the seconds until `amount` fits; 0 means now, and infinity means never."""

    def take(self, amount: int, now_s: float) -> None:
        """Count `amount`, which must fit."""

    def remaining(self, now_s: float) -> float:
        """Return the amount that fits now."""

    def reset_s(self, now_s: float) -> float:
        """Return the seconds until the meter is full again."""


class TokenBucket:
    """A bucket for `capacity` tokens that refills `limit` tokens per minute and starts full.

    After a pause, the bucket admits `capacity` tokens at once, so it can admit `limit + capacity`
    tokens in one minute. A `SlidingWindow` admits no more than `limit` tokens in any minute.
    """

    def __init__(self, limit: int, capacity: int, now_s: float) -> None:
        self.limit = limit
        self._capacity = capacity
        self._rate = limit / WINDOW_S
        self._level = float(capacity)
        self._at_s = now_s

    def wait_s(self, amount: int, now_s: float) -> float:
        """See `Meter`."""
        if amount > self._capacity:
            return math.inf
        missing = amount - self.remaining(now_s)
        return missing / self._rate if missing > _TOLERANCE else 0.0

    def take(self, amount: int, now_s: float) -> None:
        """See `Meter`."""
        self._level = self.remaining(now_s) - amount
        self._at_s = max(now_s, self._at_s)

    def remaining(self, now_s: float) -> float:
        """See `Meter`."""
        elapsed_s = max(0.0, now_s - self._at_s)
        return min(float(self._capacity), self._level + elapsed_s * self._rate)

    def reset_s(self, now_s: float) -> float:
        """See `Meter`."""
        return (self._capacity - self.remaining(now_s)) / self._rate


class SlidingWindow:
    """Admits at most `limit` tokens in any 60 s.

    A full window refuses every request until the oldest requests are 60 s old. A `TokenBucket`
    spreads requests more evenly.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._entries: deque[tuple[float, int]] = deque()

    def wait_s(self, amount: int, now_s: float) -> float:
        """See `Meter`."""
        if amount > self.limit:
            return math.inf
        missing = self._count(now_s) + amount - self.limit
        for taken_at_s, taken in self._entries:
            if missing <= 0:
                break
            missing -= taken
            if missing <= 0:
                return max(_TOLERANCE, taken_at_s + WINDOW_S - now_s)
        return 0.0

    def take(self, amount: int, now_s: float) -> None:
        """See `Meter`."""
        self._entries.append((now_s, amount))
        self._used += amount

    def remaining(self, now_s: float) -> float:
        """See `Meter`."""
        return float(self.limit - self._count(now_s))

    def reset_s(self, now_s: float) -> float:
        """See `Meter`."""
        self._count(now_s)
        return max(0.0, self._entries[-1][0] + WINDOW_S - now_s) if self._entries else 0.0

    def _count(self, now_s: float) -> int:
        while self._entries and self._entries[0][0] + WINDOW_S <= now_s + _TOLERANCE:
            self._used -= self._entries.popleft()[1]
        return self._used


class LimitGroup:
    """The meters of one `RateLimit`."""

    def __init__(self, rule: RateLimit, now_s: float) -> None:
        limits = {
            "requests": (rule.requests_per_minute, rule.burst),
            "tokens": (rule.tokens_per_minute, rule.token_burst),
            "input_tokens": (rule.input_tokens_per_minute, rule.token_burst),
            "output_tokens": (rule.output_tokens_per_minute, rule.token_burst),
        }
        self._meters: dict[str, Meter] = {
            name: SlidingWindow(limit)
            if rule.enforcement == "window"
            else TokenBucket(limit, burst or limit, now_s)
            for name, (limit, burst) in limits.items()
            if limit is not None
        }

    def admit(self, charge: Charge, now_s: float) -> Excess | None:
        """Count the request on every meter; if one meter refuses, count the request on no meter.

        Returns:
            None if the request was admitted, else the meter with the longest wait. A refused
            request is not counted.
        """
        waits = [
            (meter.wait_s(getattr(charge, name), now_s), name)
            for name, meter in self._meters.items()
        ]
        wait_s, name = max(waits, default=(0.0, ""))
        if wait_s > 0:
            return Excess(
                meter=name,
                limit=self._meters[name].limit,
                remaining=int(self._meters[name].remaining(now_s)),
                requested=getattr(charge, name),
                retry_after_s=None if math.isinf(wait_s) else wait_s,
            )
        for name, meter in self._meters.items():
            meter.take(getattr(charge, name), now_s)
        return None

    def states(self, now_s: float) -> list[MeterState]:
        """Return the states of all meters, for the headers."""
        return [
            MeterState(
                name=name,
                limit=meter.limit,
                remaining=max(0, int(meter.remaining(now_s) + _TOLERANCE)),
                reset_s=meter.reset_s(now_s),
            )
            for name, meter in self._meters.items()
        ]


def covers(pattern: str, model: str) -> bool:
    """Return whether a rule for the models of a pattern applies to a model."""
    return pattern == model if model == TOKEN_COUNT else fnmatchcase(model, pattern)


class Limits:
    """All limits of the simulator; the first rule that matches a model applies to the model."""

    def __init__(self, rules: Sequence[RateLimit], now_s: float) -> None:
        self._groups = [(rule, LimitGroup(rule, now_s)) for rule in rules]

    def group_of(self, provider: str, model: str) -> LimitGroup | None:
        """Return the group that limits this model, or None."""
        matching = (
            group
            for rule, group in self._groups
            if rule.provider == provider and covers(rule.model, model)
        )
        return next(matching, None)

"""Corrections on their way to the backend: bounded, and sent in batches."""

import math
from collections import deque
from collections.abc import Mapping

import structlog

from app.domain.usage import Usage
from app.rate_limits.base import Exchange, Observation, Permit, Refusal, Settlement
from app.rate_limits.charges import returned_amounts
from app.rate_limits.headers import limits_in, retry_after_in
from app.rate_limits.tiers import BucketSpec

#: Corrections kept while the backend is away; then the oldest are forgotten, and their
#: concurrency slots expire.
MOST_KEPT = 10_000
MOST_SENT = 500
#: Corrections wait this long for others to share their exchange; headers that say nothing new
#: wait until something else is to be said.
FLUSH_S, LAZY_S = 0.003, 0.25
DEFAULT_PAUSE_S, LONGEST_PAUSE_S = 1.0, 3600.0

log = structlog.get_logger(__name__)


class Outbox:
    """What one bucket has to be told.

    Args:
        spec: The bucket's limits; corrections are in the order of its tiers.

    Attributes:
        lateness_sent: Requests charged for late starts, as far as the backend knows.
        dropped: Corrections that were forgotten.
        careful: Whether the bucket waits for the provider's first answer.
    """

    def __init__(self, spec: BucketSpec) -> None:
        self._spec = spec
        self._settlements: deque[Settlement] = deque(maxlen=MOST_KEPT)
        self._observations: deque[Observation] = deque(maxlen=MOST_SENT)
        self._refusals: deque[Refusal] = deque(maxlen=MOST_SENT)
        self._limits_seen: dict[str, float] = {}
        self._news = False
        self._lateness = 0.0
        self.lateness_sent = 0.0
        self.dropped = 0
        self.careful = spec.cautious
        self._answered = False

    def __bool__(self) -> bool:
        return bool(self._settlements or self._observations or self._refusals or self._answered)

    @property
    def patience_s(self) -> float:
        """How long its content may wait for others to share an exchange; infinite if empty."""
        if self._settlements or self._refusals or self._news or self._answered:
            return FLUSH_S
        return LAZY_S if self._observations else math.inf

    def settle(self, permit: Permit, usage: Usage | None, headers: Mapping[str, str]) -> None:
        """A call has ended: correct the estimate, free its slot, and pass its headers on."""
        amounts = self._aligned(permit, returned_amounts(permit, usage))
        if any(amounts) or self._spec.concurrency:
            self._keep((permit.request_id, permit.granted_at, amounts))
        if usage is not None and usage.total_tokens:
            self._answered = self.careful
        if headers and permit.spent:
            self._observe(permit, headers)

    def give_back(self, permit: Permit) -> None:
        """A permit was not used: everything comes back."""
        amounts = self._aligned(permit, permit.taken)
        if amounts or self._spec.concurrency:
            self._keep((permit.request_id, permit.granted_at, amounts))

    def charge_lateness(self, permit: Permit, late_s: float) -> bool:
        """A call starts late: a full bucket at the provider lost the refill of that time.

        What it could still hold, and what was charged for the same time already, is deducted.

        Returns:
            Whether anything had to be charged.
        """
        pacing = permit.spec.pacing
        if pacing is None or permit.spec is not self._spec:
            return False
        lost = min(pacing.rate * late_s, pacing.capacity) - permit.headroom - self._lateness
        lost += permit.lateness
        if lost <= 0:
            return False
        self._lateness += lost
        amounts = [-lost if tier is pacing else 0.0 for tier in self._spec.tiers]
        self._keep((0, permit.granted_at, tuple(amounts)))
        return True

    def refuse(
        self, permit: Permit, retry_after_s: float | None, headers: Mapping[str, str], *, hard: bool
    ) -> float:
        """A call was refused: pause the bucket.

        Args:
            permit: The permit of the call.
            retry_after_s: How long, as the provider says; None: see the headers.
            headers: The answer's headers.
            hard: Whether it was a 429, which lowers the rate too.

        Returns:
            Length of the pause in seconds.
        """
        if retry_after_s is None:
            retry_after_s = retry_after_in(headers)
        pause_s = DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        pause_s = min(max(pause_s, 0.0), LONGEST_PAUSE_S)
        amounts = self._aligned(permit, permit.taken)
        self._refusals.append((permit.granted_at, pause_s, int(hard), amounts))
        return pause_s

    def fill(self, message: Exchange) -> None:
        """Move the oldest corrections into a message."""
        count = min(len(self._settlements), MOST_SENT)
        message.settlements = [self._settlements.popleft() for _ in range(count)]
        message.observations = list(self._observations)
        message.refusals = list(self._refusals)
        self._observations.clear()
        self._refusals.clear()
        message.answered = self._answered
        self._news = self._answered = False
        self.lateness_sent = self._lateness

    def reconfigure(self, spec: BucketSpec) -> None:
        """Bring what is kept into the order of other tiers."""
        settlements = [
            (number, start, _reordered(amounts, self._spec, spec))
            for number, start, amounts in self._settlements
        ]
        self._settlements = deque(settlements, maxlen=MOST_KEPT)
        self._observations.clear()
        self._refusals = deque(
            (
                (start, pause_s, hard, _reordered(amounts, self._spec, spec))
                for start, pause_s, hard, amounts in self._refusals
            ),
            maxlen=MOST_SENT,
        )
        self._spec = spec

    def _keep(self, settlement: Settlement) -> None:
        if len(self._settlements) == MOST_KEPT:
            if not self.dropped:
                log.warning("limit_corrections_dropped", bucket=self._spec.bucket, kept=MOST_KEPT)
            self.dropped += 1
        self._settlements.append(settlement)

    def _observe(self, permit: Permit, headers: Mapping[str, str]) -> None:
        positions = {tier.name: i for i, tier in enumerate(self._spec.tiers)}
        for seen in limits_in(headers):
            position = positions.get(seen.tier)
            if position is not None and permit.spec is self._spec:
                self._news |= self._limits_seen.get(seen.tier) != seen.limit
                self._limits_seen[seen.tier] = seen.limit
                spent = permit.spent[position]
                self._observations.append(
                    (position, seen.limit, seen.remaining, spent, permit.granted_at)
                )

    def _aligned(self, permit: Permit, amounts: tuple[float, ...]) -> tuple[float, ...]:
        if permit.spec is self._spec:
            return amounts
        return _reordered(amounts, permit.spec, self._spec)


def _reordered(amounts: tuple[float, ...], old: BucketSpec, new: BucketSpec) -> tuple[float, ...]:
    by_name = {tier.name: amount for tier, amount in zip(old.tiers, amounts, strict=True)}
    return tuple(by_name.get(tier.name, 0.0) for tier in new.tiers)

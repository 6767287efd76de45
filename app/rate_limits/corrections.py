"""Corrections that a process still has to send to the backend: a bounded number, in batches."""

import math
from collections import deque
from collections.abc import Mapping

import structlog

from app.domain.usage import Usage
from app.rate_limits.base import Delay, Exchange, Observation, Permit, Refusal, Settlement, Sight
from app.rate_limits.charges import returned_amounts
from app.rate_limits.headers import limits_in
from app.rate_limits.tiers import BucketSpec

#: Largest number of corrections that are kept while the backend is away. If there are more
#: corrections, the oldest corrections are forgotten, and their concurrency slots expire.
MOST_KEPT = 10_000
MOST_SENT = 500
#: Corrections wait ``FLUSH_S`` seconds, so that later corrections share the same exchange. Headers
#: without a new limit wait ``LAZY_S`` seconds, so that such headers rarely need an exchange of
#: their own.
FLUSH_S, LAZY_S = 0.003, 0.25
DEFAULT_PAUSE_S, LONGEST_PAUSE_S = 1.0, 3600.0

log = structlog.get_logger(__name__)


class Corrections:
    """The corrections of one bucket that have not been sent to the backend yet.

    Args:
        spec: The bucket's limits; the amounts of a correction are in the order of the bucket's
            tiers.

    Attributes:
        dropped: Number of corrections that were forgotten.
        careful: Whether the bucket waits for the provider's first answer.
    """

    def __init__(self, spec: BucketSpec) -> None:
        self._spec = spec
        self._settlements: deque[Settlement] = deque(maxlen=MOST_KEPT)
        self._delays: deque[Delay] = deque(maxlen=MOST_SENT)
        self._observations: deque[Observation] = deque(maxlen=MOST_SENT)
        self._refusals: deque[Refusal] = deque(maxlen=MOST_SENT)
        self._limits_seen: dict[str, float] = {}
        self._news = False
        self.dropped = 0
        self.careful = spec.cautious
        self._answered = False

    def __bool__(self) -> bool:
        return bool(
            self._settlements
            or self._delays
            or self._observations
            or self._refusals
            or self._answered
        )

    @property
    def max_wait_s(self) -> float:
        """Seconds that corrections may wait to share an exchange; infinite without corrections."""
        if self._settlements or self._delays or self._refusals or self._news or self._answered:
            return FLUSH_S
        return LAZY_S if self._observations else math.inf

    def settle(
        self, permit: Permit, usage: Usage | None, headers: Mapping[str, str], sight: Sight
    ) -> None:
        """Correct the estimate of a call that has ended, free its slot, and note the headers."""
        amounts = self._aligned(permit, returned_amounts(permit, usage))
        if any(amounts) or self._spec.concurrency:
            self._keep(Settlement(permit.request_id, permit.granted_at, amounts))
        if usage is not None and usage.total_tokens:
            self._answered = self.careful
        if headers and sight.spent and permit.spec is self._spec:
            self._observe(headers, sight)

    def give_back(self, permit: Permit) -> None:
        """Give back everything that an unused permit took."""
        amounts = self._aligned(permit, permit.taken)
        if amounts or self._spec.concurrency:
            self._keep(Settlement(permit.request_id, permit.granted_at, amounts))

    def note_delay(self, permit: Permit, sent_at: float, overdue: tuple[float, ...]) -> None:
        """Report a call that was sent late.

        Args:
            permit: The permit of the call.
            sent_at: Time at which the call was sent, by the backend's clock.
            overdue: Amounts of all calls that had not been sent before that time.
        """
        if permit.spec is self._spec:
            settled = len(self._settlements)
            self._delays.append(Delay(permit.granted_at, sent_at, permit.taken, overdue, settled))

    def refuse(self, permit: Permit, retry_after_s: float | None, *, hard: bool) -> float:
        """Report a refused call, which pauses the bucket.

        Args:
            permit: The permit of the call.
            retry_after_s: Length of the pause that the provider asks for; None means the default.
            hard: Whether the answer was a 429, which lowers the rate too.

        Returns:
            Length of the pause in seconds.
        """
        pause_s = DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        pause_s = min(max(pause_s, 0.0), LONGEST_PAUSE_S)
        amounts = self._aligned(permit, permit.taken)
        self._refusals.append(Refusal(permit.granted_at, pause_s, int(hard), amounts))
        return pause_s

    def fill(self, message: Exchange) -> None:
        """Move the oldest corrections into a message."""
        count = min(len(self._settlements), MOST_SENT)
        message.settlements = [self._settlements.popleft() for _ in range(count)]
        message.delays = [each for each in self._delays if each.settled <= count]
        later = [
            each._replace(settled=each.settled - count)
            for each in self._delays
            if each.settled > count
        ]
        message.observations = list(self._observations)
        message.refusals = list(self._refusals)
        self._delays = deque(later, maxlen=MOST_SENT)
        self._observations.clear()
        self._refusals.clear()
        message.answered = self._answered
        self._news = self._answered = False

    def reconfigure(self, spec: BucketSpec) -> None:
        """Put the amounts of the kept corrections into the order of the new tiers."""
        self._settlements = deque(
            (
                kept._replace(amounts=_reordered(kept.amounts, self._spec, spec))
                for kept in self._settlements
            ),
            maxlen=MOST_KEPT,
        )
        self._delays.clear()
        self._observations.clear()
        self._refusals = deque(
            (
                kept._replace(amounts=_reordered(kept.amounts, self._spec, spec))
                for kept in self._refusals
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

    def _observe(self, headers: Mapping[str, str], sight: Sight) -> None:
        positions = {tier.name: i for i, tier in enumerate(self._spec.tiers)}
        for seen in limits_in(headers):
            position = positions.get(seen.tier)
            if position is not None:
                self._news |= self._limits_seen.get(seen.tier) != seen.limit
                self._limits_seen[seen.tier] = seen.limit
                spent = sight.spent[position]
                self._observations.append(
                    Observation(position, seen.limit, seen.remaining, spent, sight.sent_at)
                )

    def _aligned(self, permit: Permit, amounts: tuple[float, ...]) -> tuple[float, ...]:
        if permit.spec is self._spec:
            return amounts
        return _reordered(amounts, permit.spec, self._spec)


def _reordered(amounts: tuple[float, ...], old: BucketSpec, new: BucketSpec) -> tuple[float, ...]:
    by_name = {tier.name: amount for tier, amount in zip(old.tiers, amounts, strict=True)}
    return tuple(by_name.get(tier.name, 0.0) for tier in new.tiers)

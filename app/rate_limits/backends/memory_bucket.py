"""The numbers of one bucket in memory: bucket.lua in Python, function by function.

The comments of bucket.lua give the reasons. A test checks that both versions give the same replies.
"""

import math
from dataclasses import dataclass, field

from app.rate_limits.base import Observation, Refusal
from app.rate_limits.tiers import Tier

EPSILON = 1e-6
LEARNED_S, LOWEST_OF_S = 3600.0, 60.0
RAMP_FROM, RAMP_LEAST, RAMP_S, RAMP_MAX_S = 0.5, 0.05, 10.0, 600.0
STRIKE_MEMORY_S = 600.0
NEARLY, JITTER_STEP_S, JITTER_MAX_S, JITTER_HALVED_S = 0.5, 0.002, 0.05, 30.0
MEAN_SHARE = 0.1
FLUSH_MEMORY_S = 60.0

Amounts = tuple[float, ...]


@dataclass(slots=True)
class Careful:
    """The part of each minute tier that may be used until the provider's first answer."""

    at: float
    since: float | None = None
    level: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class MemoryBucket:
    """The state of a bucket, with the same fields as the state in bucket.lua."""

    epoch: str
    born: float
    at: float
    emptied: bool = False
    level: dict[str, float] = field(default_factory=dict)
    window: dict[str, list[list[float]]] = field(default_factory=dict)
    counted: dict[str, float] = field(default_factory=dict)
    overdue: dict[str, tuple[float, Amounts]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    next: float = 0.0
    learned: dict[str, tuple[float, float]] = field(default_factory=dict)
    drift: dict[str, float] = field(default_factory=dict)
    paused_at: float = 0.0
    paused_until: float = 0.0
    pause_s: float = 0.0
    refused: dict[str, float] | None = None
    ramp_from: float = 1.0
    ramp_s: float | None = None
    strikes: int = 0
    jitter_s: float = 0.0
    careful: Careful | None = None
    v: float = 0.0
    tiers: tuple[Tier, ...] = ()
    cap: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)

    def ramp(self, time: float) -> float:
        """Return the share of the rate that applies at this time after a 429."""
        if self.ramp_s is None:
            return 1.0
        since = time - self.paused_until
        if since <= 0:
            return self.ramp_from
        return min(1.0, self.ramp_from + (1 - self.ramp_from) * since / self.ramp_s)

    def advance(self, tiers: tuple[Tier, ...], now: float) -> None:
        """Bring all numbers up to the present time."""
        self.tiers = tiers
        if self.at > now + 1:
            self.at = now
        if self.paused_until - now > self.pause_s + 1:
            self.paused_until = now
        self._resume(now)
        self._refill(now)
        if self.ramp_s is not None and now >= self.paused_until + self.ramp_s:
            self.ramp_s, self.ramp_from = None, 1.0
        for name, (_, since) in list(self.learned.items()):
            if now - since > LEARNED_S:
                del self.learned[name]
        self.put_in_force(now)
        for tier in tiers:
            if tier.kind == "window":
                self._expire_slots(tier, now)
        self._advance_careful(now)

    def put_in_force(self, now: float) -> None:
        """Calculate the capacity and the rate that apply now."""
        share = self.ramp(now)
        for tier in self.tiers:
            cap = self._capacity(tier)
            self.cap[tier.name] = max(1.0, cap * share) if tier.kind == "window" else cap
            self.speed[tier.name] = tier.rate * self._scale(tier) * share

    def fit(self, amounts: Amounts, reserve: Amounts | None, now: float) -> float:
        """Return the seconds until the amounts and ``reserve`` fit into all tiers together."""
        return self.last_to_fit(amounts, reserve, now)[0]

    def last_to_fit(
        self, amounts: Amounts, reserve: Amounts | None, now: float
    ) -> tuple[float, str]:
        """Return the result of ``fit``, and the name of the tier that has room last.

        The name is empty if all tiers have room now.
        """
        longest, name = 0.0, ""
        for i, tier in enumerate(self.tiers):
            before = reserve[i] if reserve else 0.0
            need = min(amounts[i], self.cap[tier.name]) + before
            delay = self._careful_fit(tier, amounts[i], before, now)
            if tier.kind == "window":
                delay = max(delay, self._window_fit(tier, need, now))
            elif need - self.level[tier.name] > EPSILON:
                delay = max(delay, (need - self.level[tier.name]) / self.speed[tier.name])
            if delay > longest:
                longest, name = delay, tier.name
        return longest, name

    def long_wait(self) -> tuple[float, str]:
        """Return the seconds until all tiers per hour and day have room, and the slowest tier."""
        waits = [
            ((1 - self.level[tier.name]) / self.speed[tier.name], tier.name)
            for tier in self.tiers
            if not tier.is_short and 1 - self.level[tier.name] > EPSILON
        ]
        return max(waits, key=lambda wait: wait[0], default=(0.0, ""))

    def charge(self, amounts: Amounts, start: float) -> None:
        """Take the amounts of a request that starts at this time."""
        free_from = self.next
        if self.careful is not None and self.careful.since is None:
            self.careful.since = start
        for tier, amount in zip(self.tiers, amounts, strict=True):
            self.spent[tier.name] = self.spent.get(tier.name, 0.0) + amount
            self._add_to_careful(tier, -amount)
            free_from = max(free_from, start + self._gap_after(tier, amount))
            if tier.kind == "window":
                self._count_in_window(tier, amount, start)
            else:
                self.level[tier.name] -= amount
        self.next = free_from

    def refund(self, amounts: Amounts, start: float) -> None:
        """Give back amounts that were charged at ``start``, and charge negative amounts."""
        for tier, amount in zip(self.tiers, amounts, strict=True):
            if amount == 0:
                continue
            name = tier.name
            self.spent[name] = self.spent.get(name, 0.0) - amount
            self._add_to_careful(tier, amount)
            if tier.kind == "bucket":
                self.level[name] = min(self.cap[name], self.level[name] + amount)
            elif amount > 0:
                self._refund_in_window(tier, amount, start)
            else:
                self._count_in_window(tier, -amount, start)

    def hold_down(self, amounts: Amounts, at: float, now: float) -> None:
        """Lower the levels, because these amounts were not sent yet at the time ``at``."""
        for tier, amount in zip(self.tiers, amounts, strict=True):
            if tier.kind == "bucket" and tier.is_short:
                name = tier.name
                most = self.cap[name] - amount + self.speed[name] * max(0.0, now - at)
                self.level[name] = min(self.level[name], most)

    def move_in_windows(self, amounts: Amounts, start: float, sent: float) -> None:
        """Count a late call from the time at which it was sent, in tiers that are windows."""
        for tier, amount in zip(self.tiers, amounts, strict=True):
            if tier.kind == "window":
                self._refund_in_window(tier, amount, start)
                self._count_in_window(tier, amount, sent)

    def empty_short_tiers(self, tiers: tuple[Tier, ...], now: float) -> None:
        """Empty the minute tiers after a flush."""
        for tier in tiers:
            if tier.kind == "bucket" and tier.is_short:
                self.level[tier.name] = min(self.level.get(tier.name, 0.0), 0.0)
            elif tier.kind == "window" and self.counted.get(tier.name, 0.0) < tier.capacity:
                missing = tier.capacity - self.counted.setdefault(tier.name, 0.0)
                self._count_in_window(tier, missing, now)
        self.emptied = True

    def note_unknown(self, tiers: tuple[Tier, ...]) -> None:
        """Note tiers that are new in this bucket; the earlier use of such tiers is not known."""
        for tier in tiers:
            is_new = tier.name not in self.level and tier.name not in self.counted
            if is_new and (not tier.is_short or tier.kind == "window"):
                self.unknown = [*self.unknown, tier.name]

    def rebuild(self, used: dict[str, float], now: float) -> None:
        """Count the earlier use in the tiers per hour and day, and in windows."""
        for tier in self.tiers:
            amount = used.get(tier.name)
            if amount is None:
                continue
            if tier.kind == "bucket":
                self.level[tier.name] = max(0.0, self.cap[tier.name] - amount)
            else:
                self.window[tier.name], self.counted[tier.name] = [], 0.0
                self._count_in_window(tier, min(tier.capacity, amount), now)
        self.unknown = []

    def observe(self, seen: Observation, now: float) -> None:
        """Take the headers of a provider's answer into account."""
        tier = self.tiers[seen.position]
        before = self._scale(tier)
        self._learn(tier, seen.limit, now)
        after = self._scale(tier)
        self.cap[tier.name] = self._capacity(tier)
        if tier.kind != "bucket":
            return
        level = self.level[tier.name] - tier.capacity * (before - after)
        if seen.remaining >= 0:
            since = self.spent.get(tier.name, 0.0) - seen.spent
            refill = tier.rate * after * max(0.0, now - seen.sent_at)
            theirs = seen.remaining + refill - since
            mean = self.drift.get(tier.name, 0.0)
            mean += MEAN_SHARE * (min(theirs - level, tier.tolerance) - mean)
            if mean < -tier.tolerance:
                level, mean = level + mean, 0.0
            self.drift[tier.name] = mean
        self.level[tier.name] = level

    def pause(self, refusal: Refusal, now: float) -> float | None:
        """Start the pause that an answer asks for.

        Return the length of the pause in seconds, or None if the bucket is already paused for that
        long.
        """
        seconds, amounts = refusal.pause_s, refusal.amounts
        known = self.paused_until
        if refusal.throttled and refusal.granted_at > self.paused_at:
            recent = self.paused_at and now - known < STRIKE_MEMORY_S
            self.strikes = self.strikes + 1 if recent else 1
            worth = self._severity(amounts, seconds)
            self.ramp_from = max(RAMP_LEAST, self.ramp(now) * (1 - worth * (1 - RAMP_FROM)))
            self.ramp_s = min(RAMP_MAX_S, RAMP_S * worth * 2 ** (self.strikes - 1))
            if worth < NEARLY:
                self.jitter_s = min(JITTER_MAX_S, self.jitter_s + min(seconds, JITTER_STEP_S))
            self.paused_at = now
            named = zip(self.tiers, amounts, strict=True)
            self.refused = {tier.name: amount for tier, amount in named if tier.is_short}
        if now + seconds <= known:
            return None
        self.paused_until, self.pause_s = now + seconds, seconds
        return seconds

    def _careful_left(self, tier: Tier, now: float) -> float:
        since = None if self.careful is None else self.careful.since
        return math.inf if since is None else since + tier.capacity / tier.rate - now

    def _advance_careful(self, now: float) -> None:
        careful = self.careful
        if careful is None:
            return
        elapsed = 0.0
        if careful.since is not None:
            elapsed = max(0.0, now - max(careful.at, careful.since))
        level = {}
        for tier in self.tiers:
            if tier.is_short and self._careful_left(tier, now) > 0:
                half = self._half(tier)
                had = careful.level.get(tier.name, half)
                level[tier.name] = min(half, had + elapsed * self.speed[tier.name] / 2)
        careful.level, careful.at = level, now
        if not level:
            self.careful = None

    def _careful_fit(self, tier: Tier, amount: float, reserve: float, now: float) -> float:
        if self.careful is None or tier.name not in self.careful.level:
            return 0.0
        missing = min(amount, self._half(tier)) + reserve - self.careful.level[tier.name]
        if missing <= EPSILON:
            return 0.0
        return min(missing / (self.speed[tier.name] / 2), self._careful_left(tier, now))

    def _add_to_careful(self, tier: Tier, amount: float) -> None:
        if self.careful is not None and tier.name in self.careful.level:
            level = self.careful.level
            level[tier.name] = min(self._half(tier), level[tier.name] + amount)

    def _half(self, tier: Tier) -> float:
        return max(1.0, self.cap[tier.name] / 2)

    def _resume(self, now: float) -> None:
        if self.refused is None or now < self.paused_until:
            return
        self._refill(self.paused_until)
        for name, amount in self.refused.items():
            if name in self.level:
                self.level[name] = min(self.level[name], amount)
        self.refused = None

    def _scale(self, tier: Tier) -> float:
        learned = self.learned.get(tier.name)
        return min(1.0, learned[0] / tier.limit) if learned else 1.0

    def _capacity(self, tier: Tier) -> float:
        jitter_s = self.jitter_s if tier.is_short else 0.0
        return max(1.0, tier.capacity * self._scale(tier) - tier.rate * jitter_s)

    def _refill(self, time: float) -> None:
        elapsed = max(0.0, time - self.at)
        share = (self.ramp(self.at) + self.ramp(time)) / 2
        for tier in self.tiers:
            if tier.kind == "bucket":
                cap = self._capacity(tier)
                gain = elapsed * tier.rate * self._scale(tier) * share
                self.level[tier.name] = min(cap, self.level.get(tier.name, cap) + gain)
        self.jitter_s *= 0.5 ** (elapsed / JITTER_HALVED_S)
        self.at = max(self.at, time)

    def _expire_slots(self, tier: Tier, now: float) -> None:
        slots = self.window.setdefault(tier.name, [])
        counted = self.counted.get(tier.name, 0.0)
        while slots and (slots[0][0] + 1) * tier.slot_s + tier.window_s <= now:
            counted -= slots.pop(0)[1]
        self.counted[tier.name] = counted if slots else 0.0

    def _window_fit(self, tier: Tier, amount: float, now: float) -> float:
        excess = self.counted[tier.name] + amount - self.cap[tier.name]
        if excess <= EPSILON:
            return 0.0
        for slot, count in self.window[tier.name]:
            excess -= count
            if excess <= EPSILON:
                return max(0.0, (slot + 1) * tier.slot_s + tier.window_s - now)
        return tier.window_s

    def _count_in_window(self, tier: Tier, amount: float, start: float) -> None:
        slots = self.window.setdefault(tier.name, [])
        slot = math.floor(start / tier.slot_s)
        if slots and slots[-1][0] >= slot:
            slots[-1][1] += amount
        else:
            slots.append([slot, amount])
        self.counted[tier.name] += amount

    def _refund_in_window(self, tier: Tier, amount: float, start: float) -> None:
        slot = math.floor(start / tier.slot_s)
        for entry in self.window[tier.name]:
            if entry[0] >= slot:
                refund = min(entry[1], amount)
                entry[1] -= refund
                self.counted[tier.name] -= refund
                return

    def _gap_after(self, tier: Tier, amount: float) -> float:
        if tier.name != "requests" or self.cap[tier.name] > 1 or tier.kind == "window":
            return amount * tier.spacing_s
        return 1 / self.speed[tier.name] + self.jitter_s

    def _learn(self, tier: Tier, limit: float, now: float) -> None:
        if limit <= 0:
            return
        learned = self.learned.get(tier.name)
        kept = learned is not None and now - learned[1] < LOWEST_OF_S
        if limit >= tier.limit:
            if not kept:
                self.learned.pop(tier.name, None)
        elif learned is None or not kept or limit <= learned[0]:
            self.learned[tier.name] = (limit, now)

    def _severity(self, amounts: Amounts, seconds: float) -> float:
        worst, nearest_s = 1.0, math.inf
        for tier, amount in zip(self.tiers, amounts, strict=True):
            name, speed = tier.name, self.speed[tier.name]
            if tier.is_short and amount > 0:
                is_window = tier.kind == "window"
                left = self.cap[name] - self.counted[name] if is_window else self.level[name]
                if left / speed < nearest_s:
                    nearest_s = left / speed
                    worst = min(1.0, max(0.01, seconds * speed / amount))
        return worst

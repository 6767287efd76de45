"""The backend in memory: exchange.lua in Python, for tests and for limits of a single process.

Weakness: no other process sees the buckets of this backend. The buckets end with the process.
Limits of a cluster need ``RedisBackend``.

This file is over 400 lines because it has the order of exchange.lua, function by function.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from app.rate_limits.backends.memory_bucket import (
    EPSILON,
    FLUSH_MEMORY_S,
    Amounts,
    Careful,
    MemoryBucket,
)
from app.rate_limits.base import (
    Delay,
    Exchange,
    Grant,
    News,
    Reply,
    Settlement,
    WaitingRequest,
    WaitingRun,
)
from app.rate_limits.tiers import HORIZON_S, LATE_S, LEASE_S, QUANTUM_S, SAFETY_POLL_S, BucketSpec

STALE_HEAD_S = 5.0
NUDGE_S = 0.005
LONGEST_POLL_S = 10.0
LEAD = 0.8
OVERDUE_S = 5.0


@dataclass(eq=False, kw_only=True, slots=True)
class _Head:
    """The first request of a run in a process; ``place`` is the run's position in the exchange."""

    run: str
    priority: int
    arrival: int
    amounts: Amounts
    process: str
    id: int
    cost: float
    weight: float
    place: int


@dataclass(slots=True)
class _Record:
    due: float
    waiting: int
    heads: list[_Head]


class _Shared:
    """The state of one bucket, with the same parts as in Redis."""

    def __init__(self, spec: BucketSpec) -> None:
        self.spec = spec
        self.bucket: MemoryBucket | None = None
        self.leases: dict[str, float] = {}
        self.shares: dict[str, float] = {}
        self.records: dict[str, _Record] = {}
        self.answers: dict[str, tuple[int, Reply]] = {}


class MemoryBackend:
    """Buckets in the memory of this process; several limiters may share one backend.

    Args:
        clock: Returns seconds since the epoch.

    Example:
        limiter = ClusterLimiter(MemoryBackend(), resolve)
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._buckets: dict[str, _Shared] = {}
        self._listeners: dict[str, Callable[[News], None]] = {}

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """See ``LimiterBackend``."""
        shared = self._buckets.setdefault(spec.bucket, _Shared(spec))
        number, reply = shared.answers.get(message.process, (0, None))
        if reply is not None and number == message.number:
            return reply
        step = _ExchangeStep(shared, spec, message, self._clock(), self._tell)
        reply = step.exchange()
        shared.answers[message.process] = message.number, reply
        if message.leaving:
            shared.records.pop(message.process, None)
            del shared.answers[message.process]
        return reply

    async def listen(self, process: str, on_news: Callable[[News], None]) -> None:
        """See ``LimiterBackend``."""
        self._listeners[process] = on_news

    async def snapshot(self) -> list[dict[str, Any]]:
        """See ``LimiterBackend``."""
        now = self._clock()
        return [
            _shown(shared, shared.bucket, now)
            for _, shared in sorted(self._buckets.items())
            if shared.bucket is not None
        ]

    async def close(self) -> None:
        """See ``LimiterBackend``; there is nothing to stop."""

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self._buckets.clear()

    def _tell(self, process: str | None, news: News) -> None:
        for name, listener in list(self._listeners.items()):
            if process in (None, name):
                listener(news)


class _ExchangeStep:
    """One exchange."""

    def __init__(
        self,
        shared: _Shared,
        spec: BucketSpec,
        ask: Exchange,
        now: float,
        tell: Callable[[str | None, News], None],
    ) -> None:
        self.shared, self.spec, self.ask, self.now, self.tell = shared, spec, ask, now, tell
        shared.spec = spec
        self.bucket = self._load()
        self.taken: dict[int, int] = {}
        self.mine, self.used = False, 0.0

    def exchange(self) -> Reply:
        self._apply()
        self.free = self._free_places()
        self.others = self._other_heads()
        self.shares = self._shares()
        s, shared = self.bucket, self.shared
        paused_s = max(0.0, s.paused_until - self.now)
        grants = self._grant() if paused_s == 0 and not s.unknown else []
        own = self._own_heads()
        ask_in_s = self._ask_again_in(own, paused_s)
        self._note_heads(own, ask_in_s)
        shared.shares = {run: v for run, v in shared.shares.items() if v > s.v}
        long_s, long_tier = s.long_wait()
        return Reply(
            time_s=self.now,
            epoch=s.epoch,
            grants=grants,
            ask_in_s=ask_in_s,
            paused_s=paused_s,
            careful=s.careful is not None,
            rebuild=s.unknown,
            spent=tuple(s.spent.get(tier.name, 0.0) for tier in self.spec.tiers),
            shares=[self.shares[run.run_id] for run in self.ask.runs] + [s.v],
            long_s=long_s,
            long_tier=long_tier,
            blocked_by=self._blocked_by(own, paused_s),
        )

    def _load(self) -> MemoryBucket:
        ask, tiers, now = self.ask, self.spec.tiers, self.now
        s = self.shared.bucket
        if s is None:
            s = MemoryBucket(epoch=f"{ask.process}-{ask.number}", born=now, at=now)
            if ask.rebuilds:
                s.note_unknown(tiers)
            if ask.epoch:
                s.empty_short_tiers(tiers, now)
            if self.spec.cautious:
                s.careful = Careful(at=now)
            self.shared.bucket = s
        elif ask.rebuilds:
            s.note_unknown(tiers)
        s.advance(tiers, now)
        foreign = ask.epoch and ask.epoch != s.epoch
        if foreign and not s.emptied and now - s.born < FLUSH_MEMORY_S:
            s.empty_short_tiers(tiers, now)
        return s

    def _apply(self) -> None:
        s, ask = self.bucket, self.ask
        if ask.used and s.unknown:
            s.rebuild(ask.used, self.now)
        done = 0
        for delay in ask.delays:
            self._settle(ask.settlements[done : delay.settled])
            self._note_late(delay)
            done = max(done, delay.settled)
        self._settle(ask.settlements[done:])
        self._note_overdue()
        if ask.epoch == s.epoch:
            for seen in ask.observations:
                s.observe(seen, self.now)
        for refusal in ask.refusals:
            news = s.pause(refusal, self.now)
            if news is not None:
                self.tell(None, News(bucket=self.spec.bucket, paused_s=news))
        s.put_in_force(self.now)
        if ask.answered:
            s.careful = None

    def _settle(self, settlements: Iterable[Settlement]) -> None:
        for settled in settlements:
            self.shared.leases.pop(f"{self.ask.process}:{settled.id}", None)
            if len(settled.amounts) == len(self.spec.tiers):
                self.bucket.refund(settled.amounts, settled.granted_at)

    def _note_late(self, delay: Delay) -> None:
        s = self.bucket
        if len(delay.amounts) == len(self.spec.tiers):
            s.overdue[self.ask.process] = self.now, delay.overdue
            s.hold_down(self._overdue(), delay.sent_at, self.now)
            s.move_in_windows(delay.amounts, delay.granted_at, delay.sent_at)

    def _note_overdue(self) -> None:
        s, ask = self.bucket, self.ask
        s.overdue.pop(ask.process, None)
        if ask.overdue:
            s.overdue[ask.process] = self.now + OVERDUE_S, ask.overdue
        s.hold_down(self._overdue(), self.now, self.now)

    def _add_to_overdue(self, amounts: Amounts) -> None:
        late = self.bucket.overdue.get(self.ask.process)
        if late is not None:
            sums = tuple(one + more for one, more in zip(late[1], amounts, strict=True))
            self.bucket.overdue[self.ask.process] = late[0], sums

    def _overdue(self) -> Amounts:
        s, count = self.bucket, len(self.spec.tiers)
        for process, (until, amounts) in list(s.overdue.items()):
            if until < self.now or len(amounts) != count:
                del s.overdue[process]
        return tuple(sum(late[1][i] for late in s.overdue.values()) for i in range(count))

    def _free_places(self) -> float:
        if not self.spec.concurrency:
            return math.inf
        leases = self.shared.leases
        for number in self.ask.renewals:
            leases[f"{self.ask.process}:{number}"] = self.now + LEASE_S
        for name in [name for name, expiry in leases.items() if expiry <= self.now]:
            del leases[name]
        return self.spec.concurrency - len(leases)

    def _other_heads(self) -> list[_Head]:
        found = []
        for process, record in list(self.shared.records.items()):
            if record.due + STALE_HEAD_S < self.now:
                del self.shared.records[process]
            elif process != self.ask.process and record.due + LATE_S >= self.now:
                found += [h for h in record.heads if len(h.amounts) == len(self.spec.tiers)]
        return found

    def _shares(self) -> dict[str, float]:
        names = [run.run_id for run in self.ask.runs] + [head.run for head in self.others]
        return {name: max(self.shared.shares.get(name, 0.0), self.bucket.v) for name in names}

    def _goes_before(self, a: _Head, b: _Head) -> bool:
        va, vb = self.shares[a.run], self.shares[b.run]
        if abs(va - vb) > EPSILON:
            return va < vb
        return (-a.priority, a.arrival, a.process) < (-b.priority, b.arrival, b.process)

    def _first_of(self, heads: list[_Head]) -> _Head | None:
        first = None
        for head in heads:
            if first is None or self._goes_before(head, first):
                first = head
        return first

    def _own_heads(self) -> list[_Head]:
        return [
            _head(self.ask.process, run, run.requests[self.taken.get(place, 0)], place)
            for place, run in enumerate(self.ask.runs)
            if self.taken.get(place, 0) < len(run.requests)
        ]

    def _delay_of(self, head: _Head) -> float | None:
        s, now = self.bucket, self.now
        gap = max(0.0, s.next - now)
        if self.free > len(self.others) and s.fit(head.amounts, self._sum(self.others), now) == 0:
            return gap
        ahead = [other for other in self.others if self._goes_before(other, head)]
        if not ahead or (self.mine and self.used < QUANTUM_S):
            self.mine = True
            return max(gap, s.fit(head.amounts, None, now))
        if self.free > len(ahead) and s.fit(head.amounts, self._sum(ahead), now) == 0:
            return gap
        return None

    def _sum(self, heads: list[_Head]) -> Amounts:
        return tuple(sum(head.amounts[i] for head in heads) for i in range(len(self.spec.tiers)))

    def _grant(self) -> list[Grant]:
        s, grants = self.bucket, []
        while self.free >= 1:
            head = self._first_of(self._own_heads())
            delay = self._delay_of(head) if head else None
            if head is None or delay is None or delay > HORIZON_S:
                break
            s.charge(head.amounts, self.now + delay)
            self._add_to_overdue(head.amounts)
            grants.append(Grant(head.id, delay))
            self.taken[head.place] = self.taken.get(head.place, 0) + 1
            self.used += head.cost
            s.v = self.shares[head.run]
            self.shares[head.run] = s.v + head.cost / head.weight
            self.shared.shares[head.run] = self.shares[head.run]
            if self.spec.concurrency:
                lease = f"{self.ask.process}:{head.id}"
                self.shared.leases[lease] = self.now + delay + LEASE_S
                self.free -= 1
        return grants

    def _ask_again_in(self, own: list[_Head], paused_s: float) -> float | None:
        s = self.bucket
        first = self._first_of(own + self.others)
        if first is None:
            return None
        start, due = math.inf, SAFETY_POLL_S
        if self.free >= 1 and not s.unknown:
            start = max(paused_s, s.next - self.now, s.fit(first.amounts, None, self.now))
            due = max(0.0, start - LEAD * HORIZON_S)
        if first.process != self.ask.process:
            record = self.shared.records[first.process]
            if record.due - self.now > due + NUDGE_S:
                record.due = self.now + due
                self.tell(first.process, News(bucket=self.spec.bucket, ask_in_s=due))
            due = max(SAFETY_POLL_S, start / 2 if start < math.inf else 0.0)
        return min(due, LONGEST_POLL_S) if own else None

    def _blocked_by(self, own: list[_Head], paused_s: float) -> str:
        if not own:
            return ""
        if paused_s > 0:
            return "pause"
        if self.free < 1:
            return "concurrency"
        _, tier = self.bucket.last_to_fit(own[0].amounts, self._sum(self.others), self.now)
        return tier or next((each.name for each in self.spec.tiers), "")

    def _note_heads(self, own: list[_Head], ask_in_s: float | None) -> None:
        records, process = self.shared.records, self.ask.process
        if not own or ask_in_s is None:
            records.pop(process, None)
            return
        waiting = sum(run.waiting - self.taken.get(i, 0) for i, run in enumerate(self.ask.runs))
        records[process] = _Record(self.now + ask_in_s, waiting, own)


def _head(process: str, run: WaitingRun, request: WaitingRequest, place: int) -> _Head:
    return _Head(
        process=process, run=run.run_id, weight=run.weight, place=place, id=request.id,
        priority=request.priority, arrival=request.arrival_ms, cost=request.cost_s,
        amounts=request.amounts,
    )  # fmt: skip


def _shown(shared: _Shared, s: MemoryBucket, now: float) -> dict[str, Any]:
    spec = shared.spec
    s.advance(spec.tiers, now)
    alive = [record for record in shared.records.values() if record.due + LATE_S >= now]
    one = tuple(1.0 if tier.in_requests else 0.0 for tier in spec.tiers)
    wanted = [head.amounts for record in alive for head in record.heads] or [one]
    paused_s = max(0.0, s.paused_until - now)
    tiers = []
    for tier in spec.tiers:
        used = s.counted[tier.name] if tier.kind == "window" else None
        cap = s.cap[tier.name]
        shown = {
            "tier": tier.name,
            "enforcement": tier.kind,
            "limit": tier.limit,
            "capacity": cap,
            "level": s.level[tier.name] if used is None else cap - used,
            "rate": s.speed[tier.name],
        }
        if tier.name in s.learned:
            shown["learned_limit"] = s.learned[tier.name][0]
        tiers.append(shown)
    fit_s = min(s.fit(amounts, None, now) for amounts in wanted)
    return {
        "bucket": spec.bucket,
        "epoch": s.epoch,
        "tiers": tiers,
        "waiting": sum(record.waiting for record in alive),
        "concurrency": spec.concurrency,
        "in_flight": sum(expiry > now for expiry in shared.leases.values()),
        "paused_s": paused_s,
        "next_free_s": max(paused_s, s.next - now, fit_s),
        "ramp": s.ramp(now),
    }

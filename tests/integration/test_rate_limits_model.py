"""The Lua scripts and their model in Python give the same answers in every sequence."""

import math
from dataclasses import asdict
from itertools import count
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    consumes,
    initialize,
    multiple,
    rule,
)

from app.domain.policies import RateLimitConfig
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.backends.redis import RedisBackend
from app.rate_limits.base import (
    Delay,
    Exchange,
    Observation,
    Refusal,
    Reply,
    Settlement,
    WaitingRequest,
    WaitingRun,
)
from app.rate_limits.tiers import BucketSpec, spec_of
from app.rate_limits.token_bucket import TokenBucket
from tests.support.state_machines import OnRedis, run_on_redis

NONE: dict[str, Any] = dict.fromkeys(
    (
        "requests_per_minute",
        "requests_per_hour",
        "requests_per_day",
        "tokens_per_minute",
        "concurrent_requests",
    )
)
CONFIGS = [
    RateLimitConfig(**NONE | {"requests_per_minute": 600, "burst": 3}),
    RateLimitConfig(**NONE | {"requests_per_minute": 60, "burst": 1}),
    RateLimitConfig(requests_per_minute=120, burst=5, tokens_per_minute=6000),
    RateLimitConfig(**NONE | {"requests_per_minute": 20, "enforcement": "window"}),
    RateLimitConfig(
        **NONE
        | {"input_tokens_per_minute": 5000, "output_tokens_per_minute": 900, "burst": 2}
        | {"requests_per_minute": 90, "requests_per_hour": 100}
    ),
    RateLimitConfig(**NONE | {"concurrent_requests": 3}),
    RateLimitConfig(**NONE),
]
PROCESSES = ("A", "B", "C")
RUNS = ("red", "green", "blue")
BUCKETS = count(1)

seconds = st.sampled_from([0.0, 0.001, 0.01, 0.04, 0.1, 0.5, 1.0, 2.5, 7.0, 61.0, 400.0])
shares_of_a_minute = st.floats(min_value=0.001, max_value=0.4)


class LuaAgreesWithPython(OnRedis):
    """Sends the same exchanges to both backends, at the same moments."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.ids = count(1)
        self.numbers = dict.fromkeys(PROCESSES, 0)
        self.last: dict[str, tuple[Exchange, Reply]] = {}
        self.epochs = dict.fromkeys(PROCESSES, "")
        self.memory = MemoryBackend(clock=lambda: self.now)
        self.lua = RedisBackend(self.redis, clock=lambda: self.now)

    @initialize(config=st.sampled_from(CONFIGS), cautious=st.booleans())
    def choose_limits(self, config: RateLimitConfig, cautious: bool) -> None:
        self.run(self.redis.flushdb())
        self.spec = spec_of(f"bucket {next(BUCKETS)}", config, cautious=cautious)

    @rule(delay_s=seconds)
    def time_passes(self, delay_s: float) -> None:
        self.now += delay_s

    @rule(
        target=permits,
        process=st.sampled_from(PROCESSES),
        asked=st.lists(
            st.tuples(st.sampled_from(RUNS), st.integers(1, 10), shares_of_a_minute), max_size=8
        ),
        rebuilds=st.booleans(),
    )
    def ask(self, process: str, asked: list[tuple[str, int, float]], rebuilds: bool) -> Any:
        runs: dict[str, list[WaitingRequest]] = {}
        for run, priority, share in asked:
            amounts = tuple(
                1.0 if tier.in_requests else min(float(int(tier.limit * share)), tier.capacity)
                for tier in self.spec.tiers
            )
            arrival_ms = int(self.now * 1000)
            runs.setdefault(run, []).append(
                WaitingRequest(next(self.ids), priority, arrival_ms, 0.1, amounts)
            )
        waiting: list[WaitingRun] = []
        for place, (run, requests) in enumerate(runs.items()):
            requests.sort(key=lambda request: (-request.priority, request.id))
            waiting.append(WaitingRun(run, 1.0 + place, len(requests), requests))
        reply = self.exchange(process, runs=waiting, rebuilds=rebuilds)
        taken = {each.id: each.amounts for run in waiting for each in run.requests}
        return multiple(
            *(
                (process, number, reply.time_s + delay_s, taken[number], reply.spent)
                for number, delay_s in reply.grants
            )
        )

    @rule(permit=consumes(permits), refund=st.floats(min_value=-0.5, max_value=1.0))
    def settle(self, permit: Any, refund: float) -> None:
        process, number, start, amounts, _ = permit
        refunds = tuple(
            0.0 if tier.in_requests and refund < 1 else float(int(amount * refund))
            for tier, amount in zip(self.spec.tiers, amounts, strict=True)
        )
        self.exchange(process, settlements=[Settlement(number, start, refunds)])

    @rule(
        permit=permits,
        late_s=st.sampled_from([0.0, 0.005, 0.2, 3.0, 70.0]),
        others=st.floats(0, 3),
        overdue=st.booleans(),
        settled=st.sampled_from([None, 0, 1, 2]),
    )
    def be_late(
        self, permit: Any, late_s: float, others: float, overdue: bool, settled: int | None
    ) -> None:
        process, number, start, amounts, _ = permit
        late = tuple(float(int(amount * (1 + others))) for amount in amounts)
        self.exchange(
            process,
            settlements=[] if settled is None else [Settlement(number, start, amounts)],
            delays=[Delay(start, start + late_s, amounts, late, settled or 0)],
            overdue=amounts if overdue else (),
        )

    @rule(permit=permits, limit=st.floats(0.2, 2), remaining=st.floats(0, 1))
    def hear_headers(self, permit: Any, limit: float, remaining: float) -> None:
        process, _, start, _, spent = permit
        self.exchange(
            process,
            observations=[
                Observation(
                    i,
                    float(int(tier.limit * limit)),
                    float(int(tier.limit * remaining)),
                    before,
                    start,
                )
                for i, (tier, before) in enumerate(zip(self.spec.tiers, spent, strict=True))
            ],
        )

    @rule(permit=permits, pause_s=st.sampled_from([0.0, 0.02, 0.3, 5.0]), hard=st.booleans())
    def be_refused(self, permit: Any, pause_s: float, hard: bool) -> None:
        process, _, start, amounts, _ = permit
        self.exchange(process, refusals=[Refusal(start, pause_s, int(hard), amounts)])

    @rule(process=st.sampled_from(PROCESSES))
    def be_answered(self, process: str) -> None:
        self.exchange(process, answered=True)

    @rule(permit=permits)
    def renew(self, permit: Any) -> None:
        self.exchange(permit[0], renewals=[permit[1]])

    @rule(used=st.integers(0, 200), process=st.sampled_from(PROCESSES))
    def tell_earlier_use(self, used: int, process: str) -> None:
        self.exchange(process, used={tier.name: float(used) for tier in self.spec.tiers})

    @rule(process=st.sampled_from(PROCESSES))
    def leave(self, process: str) -> None:
        self.exchange(process, leaving=True)

    @rule(process=st.sampled_from(PROCESSES))
    def repeat(self, process: str) -> None:
        if process in self.last:
            message, first = self.last[process]
            before = self.run(self.lua.snapshot())
            assert_alike(asdict(self.send(message)), asdict(first))
            assert self.run(self.lua.snapshot()) == before

    @rule()
    def flush(self) -> None:
        self.memory.flush()
        self.run(self.redis.flushdb())
        self.last.clear()

    @rule()
    def look(self) -> None:
        theirs, ours = self.run(self.lua.snapshot()), self.run(self.memory.snapshot())
        assert_alike(theirs, ours)

    def exchange(self, process: str, **said: Any) -> Reply:
        self.numbers[process] += 1
        message = Exchange(
            process=process, number=self.numbers[process], epoch=self.epochs[process], **said
        )
        reply = self.send(message)
        self.epochs[process] = reply.epoch
        self.last[process] = message, reply
        if message.leaving:
            del self.last[process]
        return reply

    def send(self, message: Exchange) -> Reply:
        reply: Reply = self.run(self.lua.exchange(self.spec, message))
        expected = self.run(self.memory.exchange(self.spec, message))
        assert_alike(asdict(reply), asdict(expected))
        return reply


def assert_alike(one: Any, other: Any) -> None:
    """Equal, but for the rounding of numbers that have been text."""
    if isinstance(one, float) or isinstance(other, float):
        assert math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6), (one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_alike(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), (one, other)
        for value, expected in zip(one, other, strict=True):
            assert_alike(value, expected)
    else:
        assert one == other


def test_lua_agrees_with_its_model(redis_url: str) -> None:
    run_on_redis(LuaAgreesWithPython, redis_url, examples=50, steps=40)


def requests_only(spec: BucketSpec, number: int) -> Exchange:
    cost_s = 1 / spec.tiers[0].rate
    return Exchange(
        process="A",
        number=number,
        runs=[WaitingRun("run", 1.0, 1, [WaitingRequest(number, 5, 0, cost_s, (1.0,))])],
    )


class LuaAgreesWithTokenBucket(OnRedis):
    """A bucket with one tier grants exactly when the pure bucket has a token."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.number = 0
        self.lua = RedisBackend(self.redis, clock=lambda: self.now)

    @initialize(per_minute=st.integers(30, 2000), burst=st.integers(3, 30))
    def choose_limits(self, per_minute: int, burst: int) -> None:
        config = RateLimitConfig(**NONE | {"requests_per_minute": per_minute, "burst": burst})
        self.spec = spec_of(f"bucket {next(BUCKETS)}", config)
        tier = self.spec.tiers[0]
        self.model = TokenBucket(tier.capacity, tier.rate, clock=lambda: self.now)
        self.spacing_s = tier.spacing_s

    @rule(delay_s=st.floats(min_value=0.0, max_value=3.0))
    def take_one(self, delay_s: float) -> None:
        self.now += self.spacing_s + delay_s  # a burst is spread: ask when that is over
        self.number += 1
        wait_s = self.model.time_until(1)

        reply = self.run(self.lua.exchange(self.spec, requests_only(self.spec, self.number)))

        if reply.grants:
            assert reply.grants[0].delay_s == pytest.approx(wait_s, abs=1e-4)
            self.now += wait_s + 1e-6
            assert self.model.consume(1)
        else:
            assert wait_s > 0.05 - 1e-4


def test_lua_agrees_with_the_token_bucket(redis_url: str) -> None:
    run_on_redis(LuaAgreesWithTokenBucket, redis_url, examples=40, steps=40)

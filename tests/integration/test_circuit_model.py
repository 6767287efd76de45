"""The Lua script of the circuit breakers agrees with its model in Python in every sequence."""

import math
from dataclasses import asdict
from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)

from app.domain.circuit import CircuitBreakerConfig
from app.failures.circuit import Message, View
from app.failures.circuit_redis import RedisCircuits
from tests.support.circuit_model import MemoryCircuits
from tests.support.state_machines import OnRedis, run_on_redis

CONFIGS = [
    CircuitBreakerConfig(window_s=10, min_failures=3, failure_share=0.5, open_s=4, max_open_s=16),
    CircuitBreakerConfig(window_s=1, min_failures=1, failure_share=1, open_s=1, max_open_s=1),
    CircuitBreakerConfig(),
]
PROCESSES = ("A", "B", "C")
NAMES = count(1)
processes = st.sampled_from(PROCESSES)
seconds = st.sampled_from([0.0, 0.01, 0.3, 1.0, 3.9, 4.1, 8.0, 15.5, 61.0, 400.0])


class LuaAgreesWithPython(OnRedis):
    """Sends the same messages to both, at the same moments."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.numbers = dict.fromkeys(PROCESSES, 0)
        self.last: Message | None = None
        self.probes: dict[str, str] = {}

    @initialize(config=st.sampled_from(CONFIGS))
    def choose_policy(self, config: CircuitBreakerConfig) -> None:
        self.name = f"openai/model {{{next(NAMES)}}}"
        self.policy = config
        self.memory = MemoryCircuits(config, clock=lambda: self.now)
        self.lua = RedisCircuits(self.redis, config, clock=lambda: self.now)

    @rule(delay_s=seconds)
    def time_passes(self, delay_s: float) -> None:
        self.now += delay_s

    @rule(
        process=processes,
        ok=st.lists(st.tuples(st.floats(0, 12), st.integers(1, 9)), max_size=3),
        bad=st.integers(0, 5),
    )
    def report(self, process: str, ok: list[tuple[float, int]], bad: int) -> None:
        self.numbers[process] += 1
        self.say(Message(process=process, number=self.numbers[process], ok=ok, bad=bad))

    @rule()
    def repeat(self) -> None:
        if self.last is not None:
            self.say(self.last)

    @rule(process=processes)
    def ask_for_a_probe(self, process: str) -> None:
        token = f"{process}:{next(NAMES)}"
        view = self.say(Message(process=process, number=0, token=token))
        if view.granted:
            others = [name for name in self.probes if name != process]
            assert not others or view.state == "half_open"
            self.probes[process] = token

    @rule(process=processes, verdict=st.sampled_from(["ok", "bad", "release", "renew"]))
    def judge_the_probe(self, process: str, verdict: Any) -> None:
        token = self.probes.get(process, "stale")
        self.say(Message(process=process, number=0, token=token, verdict=verdict))

    @rule(process=processes)
    def fail_until_it_opens(self, process: str) -> None:
        self.report(process, [], 50)
        view, policy = self.seen(), self.policy
        asked = max(policy.min_failures, policy.failure_share * (view.ok + view.bad))
        assert view.state != "closed" or view.bad < asked

    @rule(early_s=st.sampled_from([0.0, 0.001]))
    def wait_for_the_next_try(self, early_s: float) -> None:
        self.now += max(self.seen().wait_s - early_s, 0.0)

    @rule(first=processes, second=processes, verdict=st.sampled_from(["ok", "bad", "release"]))
    def probe(self, first: str, second: str, verdict: Any) -> None:
        self.fail_until_it_opens(first)
        self.wait_for_the_next_try(0.0)
        self.ask_for_a_probe(first)
        self.ask_for_a_probe(second)
        self.judge_the_probe(first, verdict)

    @precondition(lambda self: self.now % 2 < 1)
    @rule()
    def flush(self) -> None:
        self.memory.flush()
        self.run(self.redis.flushdb())

    @rule()
    def look(self) -> None:
        assert_alike(self.run(self.lua.exchange(self.name, None)), self.seen())

    def say(self, message: Message) -> View:
        self.last = message
        said: View = self.run(self.lua.exchange(self.name, message))
        assert_alike(said, self.run(self.memory.exchange(self.name, message)))
        return said

    def seen(self) -> View:
        view: View = self.run(self.memory.exchange(self.name, None))
        return view


def assert_alike(one: View, other: View) -> None:
    """Equal, but for the rounding of numbers that have been text."""
    mine, theirs = asdict(one), asdict(other)
    wait_s, expected_s = mine.pop("wait_s"), theirs.pop("wait_s")
    assert mine == theirs
    assert math.isclose(wait_s, expected_s, rel_tol=1e-6, abs_tol=1e-6)


def test_lua_agrees_with_its_model(redis_url: str) -> None:
    run_on_redis(LuaAgreesWithPython, redis_url, examples=50, steps=30)

"""State machines of Hypothesis that compare a Lua script with its model in Python."""

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from redis.asyncio import Redis


class OnRedis(RuleBasedStateMachine):
    """A state machine whose steps talk to Redis on a separate loop."""

    redis: Redis
    loop: asyncio.AbstractEventLoop

    def run(self, step: Any) -> Any:
        return self.loop.run_until_complete(step)


def run_on_redis(machine: type[OnRedis], redis_url: str, *, examples: int, steps: int) -> None:
    """Run a machine against an empty Redis database."""
    with asyncio.Runner() as runner:
        redis = Redis.from_url(redis_url)
        connected = type(machine.__name__, (machine,), {"redis": redis, "loop": runner.get_loop()})
        run_state_machine_as_test(
            connected,
            settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None),
        )
        runner.run(redis.aclose())

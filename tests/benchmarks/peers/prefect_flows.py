"""Prefect: a flow run per run, an asynchronous task per agent, gathered level by level.

The server records every flow run and task run. Results are not stored, which is Prefect's
default: a flow whose process dies starts again. No ledger, budgets or limits in tokens.
"""

import asyncio
import time

from openai import AsyncOpenAI
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tests.benchmarks.protocol import Answer
from tests.benchmarks.sdk_calls import ask, open_client
from tests.benchmarks.workloads import Workload, filled_prompt

#: With more at once, a server on SQLite answers 503.
FLOWS_AT_ONCE = 20
clients: dict[asyncio.AbstractEventLoop, AsyncOpenAI] = {}


@task(cache_policy=NO_CACHE)
async def agent(batch: int, level: int, item: int, previous: str | None) -> str:
    """One agent."""
    client = clients[asyncio.get_running_loop()]
    return await ask(client, filled_prompt(batch, level, item, previous))


@flow(validate_parameters=False)
async def fleet(batch: int, levels: int, width: int) -> int:
    """A run, level by level."""
    answers: list[str | None] = [None] * width
    for level in range(levels):
        answers = list(
            await asyncio.gather(
                *(agent(batch, level, item, previous) for item, previous in enumerate(answers))
            )
        )
    return sum(answer is not None for answer in answers)


class Prefect:
    """One client and one loop for all workloads."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        clients[self._runner.get_loop()] = self._runner.run(open_client())

    def run(self, workload: Workload) -> Answer:
        """Run all flows side by side."""
        started_s = time.perf_counter()
        answered = self._runner.run(self._all(workload))
        wall_s = time.perf_counter() - started_s
        assert answered == [workload.width] * workload.runs
        return Answer(wall_s=wall_s)

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()

    async def _all(self, workload: Workload) -> list[int]:
        places = asyncio.Semaphore(FLOWS_AT_ONCE)

        async def one(batch: int) -> int:
            async with places:
                answered: int = await fleet(batch, workload.levels, workload.width)
                return answered

        answered: list[int] = await asyncio.gather(*map(one, range(workload.runs)))
        return answered

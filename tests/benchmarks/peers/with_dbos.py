"""DBOS: a durable workflow per run, an asynchronous step per agent, one process.

Each step's output is in Postgres before the workflow continues. No ledger, budgets or limits in
tokens; a workflow whose process dies continues when DBOS starts again.
"""

import asyncio
import os
import time

from dbos import DBOS, DBOSConfig
from openai import AsyncOpenAI

from tests.benchmarks.protocol import Answer, serve
from tests.benchmarks.sdk_calls import ask, open_client
from tests.benchmarks.workloads import Workload, filled_prompt

#: Connections; twice DBOS's default.
POOL_SIZE = 40
clients: dict[asyncio.AbstractEventLoop, AsyncOpenAI] = {}


async def client() -> AsyncOpenAI:
    """The client of the running loop, which DBOS chooses."""
    loop = asyncio.get_running_loop()
    if loop not in clients:
        clients[loop] = await open_client()
    return clients[loop]


@DBOS.step()
async def agent(batch: int, level: int, item: int, previous: str | None) -> str:
    """One agent."""
    return await ask(await client(), filled_prompt(batch, level, item, previous))


@DBOS.workflow()
async def fleet(batch: int, levels: int, width: int) -> int:
    """A run, level by level; DBOS requires that steps always start in the same order."""
    answers: list[str | None] = [None] * width
    for level in range(levels):
        answers = list(
            await asyncio.gather(
                *(agent(batch, level, item, previous) for item, previous in enumerate(answers))
            )
        )
    return sum(answer is not None for answer in answers)


async def _all(workload: Workload) -> list[int]:
    handles = await asyncio.gather(
        *(
            DBOS.start_workflow_async(fleet, batch, workload.levels, workload.width)
            for batch in range(workload.runs)
        )
    )
    answered: list[int] = await asyncio.gather(*(handle.get_result() for handle in handles))
    return answered


def main() -> None:
    """Be a contender."""
    config: DBOSConfig = {
        "name": "fleet",
        "system_database_url": os.environ["PEER_DATABASE_URL"].replace(
            "postgresql://", "postgresql+psycopg://"
        ),
        "sys_db_pool_size": POOL_SIZE,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()
    with asyncio.Runner() as runner:

        def run(workload: Workload) -> Answer:
            started_s = time.perf_counter()
            answered = runner.run(_all(workload))
            wall_s = time.perf_counter() - started_s
            assert answered == [workload.width] * workload.runs
            return Answer(wall_s=wall_s)

        serve(run)
    DBOS.destroy()


if __name__ == "__main__":
    main()

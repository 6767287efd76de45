"""The contender AgentChord: a user's program that enqueues and waits; workers do the rest."""

import asyncio
import time

from app import Run, enqueue_async
from app.client import process
from tests.benchmarks.contenders import Answer, serve
from tests.benchmarks.workloads import WORKLOADS, Workload

TIMEOUT_S = 120.0


async def _start_and_wait(workload: Workload, number: int) -> Run:
    run = await enqueue_async(workload.workflow, {"batch": number})
    await run.wait_async(timeout=TIMEOUT_S)
    return run


async def _all(workload: Workload) -> list[Run]:
    runs = (_start_and_wait(workload, number) for number in range(workload.runs))
    return await asyncio.gather(*runs)


def _run(workload: Workload) -> Answer:
    started_s = time.perf_counter()
    runs = asyncio.run(_all(workload))
    return Answer(
        wall_s=time.perf_counter() - started_s,
        run_ids=[run.id for run in runs],
    )


if __name__ == "__main__":
    for known in WORKLOADS.values():
        known.workflow  # noqa: B018  built, as a program has its workflows at hand
    process()
    serve(_run)

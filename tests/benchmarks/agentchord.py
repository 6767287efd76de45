"""The contender AgentChord: a user's program that enqueues and waits; workers do the rest."""

import asyncio
import time
from functools import cache

from app import Run, enqueue_async
from app.client.process import process
from app.domain.agent import Agent
from app.domain.workflow import Workflow
from tests.benchmarks.protocol import Answer, serve
from tests.benchmarks.workloads import (
    MAX_TOKENS,
    MODEL,
    WORKLOADS,
    Workload,
    agent_name,
    prompt,
)

TIMEOUT_S = 600.0


@cache
def workflow_of(workload: Workload) -> Workflow:
    """The workflow of every run; a run's input is ``{"batch": number}``."""
    agents = [
        Agent(
            name=agent_name(level, item),
            prompt_template=prompt(level, item),
            llm_config={"model": MODEL, "max_tokens": MAX_TOKENS},
            dependencies=[agent_name(level - 1, item)] if level else [],
        )
        for level, item in workload.places()
    ]
    return Workflow(
        name=f"benchmark {workload.name}", agents=agents, max_parallel_agents=workload.width
    )


async def _start_and_wait(workload: Workload, number: int) -> tuple[Run, float]:
    run = await enqueue_async(workflow_of(workload), {"batch": number})
    accepted_s = time.perf_counter()
    await run.wait_async(timeout=TIMEOUT_S)
    return run, accepted_s


async def _all(workload: Workload) -> list[tuple[Run, float]]:
    runs = (_start_and_wait(workload, number) for number in range(workload.runs))
    return await asyncio.gather(*runs)


def _run(workload: Workload) -> Answer:
    workflow_of(workload)
    started_s = time.perf_counter()
    runs = asyncio.run(_all(workload))
    return Answer(
        wall_s=time.perf_counter() - started_s,
        accepted_s=max(accepted_s for _, accepted_s in runs) - started_s,
        run_ids=[run.id for run, _ in runs],
    )


if __name__ == "__main__":
    for known in WORKLOADS.values():
        workflow_of(known)  # built before the measurement, as a program's are
    process()
    serve(_run)

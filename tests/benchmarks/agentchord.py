"""The contender AgentChord: a user's program that enqueues and waits; workers do the rest."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from app import Run, enqueue, enqueue_async
from app.client.process import process
from app.domain.agent import Agent
from app.domain.workflow import Workflow
from tests.benchmarks.protocol import Answer, Times, serve
from tests.benchmarks.workloads import (
    AT_REST,
    MAX_TOKENS,
    MODEL,
    WORKLOADS,
    Workload,
    agent_name,
    prompt,
)

TIMEOUT_S = 600.0

#: A run and its times.
Timed = tuple[Run, Times]


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


async def _start_and_wait(workload: Workload, number: int) -> Timed:
    called_s = time.monotonic()
    run = await enqueue_async(workflow_of(workload), {"batch": number})
    accepted_s = time.monotonic()
    await run.wait_async(timeout=TIMEOUT_S)
    return run, (called_s, accepted_s, time.monotonic())


async def _with_coroutines(workload: Workload) -> list[Timed]:
    runs = (_start_and_wait(workload, number) for number in range(workload.runs))
    return await asyncio.gather(*runs)


def _with_threads(workload: Workload) -> list[Timed]:
    """Start and wait in threads, each of which has every so many-th run."""
    with ThreadPoolExecutor(workload.threads) as pool:
        shares = pool.map(lambda first: list(_share(workload, first)), range(workload.threads))
        return [timed for share in shares for timed in share]


def _share(workload: Workload, first: int) -> Iterator[Timed]:
    started = []
    for number in range(first, workload.runs, workload.threads):
        called_s = time.monotonic()
        run = enqueue(workflow_of(workload), {"batch": number})
        started.append((run, called_s, time.monotonic()))
    for run, called_s, accepted_s in started:
        run.wait(timeout=TIMEOUT_S)
        yield run, (called_s, accepted_s, time.monotonic())


def _one_by_one(workload: Workload) -> list[Timed]:
    found = []
    rest = threading.Event()  # never set: the stack comes to rest by itself
    for number in range(workload.runs):
        rest.wait(workload.pause_s)
        called_s = time.monotonic()
        run = enqueue(workflow_of(workload), {"batch": number})
        accepted_s = time.monotonic()
        run.wait(timeout=TIMEOUT_S)
        found.append((run, (called_s, accepted_s, time.monotonic())))
    return found


def _timed(workload: Workload) -> list[Timed]:
    if workload.pause_s:
        return _one_by_one(workload)
    return _with_threads(workload) if workload.threads else asyncio.run(_with_coroutines(workload))


def _run(workload: Workload) -> Answer:
    workflow_of(workload)
    started_s = time.monotonic()
    runs = _timed(workload)
    return Answer(
        wall_s=time.monotonic() - started_s,
        accepted_s=max(accepted_s for _, (_, accepted_s, _) in runs) - started_s,
        run_ids=[run.id for run, _ in runs],
        times_s=[times_s for _, times_s in runs],
    )


if __name__ == "__main__":
    for known in (*WORKLOADS.values(), AT_REST):
        workflow_of(known)  # built before the measurement, as a program's are
    process()
    serve(_run)

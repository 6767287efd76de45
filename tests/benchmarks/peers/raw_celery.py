"""Raw Celery: one task per agent, a chord per level, chains; Redis as broker and result backend.

With the fast options of Celery's documentation: early acknowledgement, threads, results only where
they are read, no events, and in each worker process one loop with the SDK's aiohttp transport,
which is faster than its synchronous client. A level's body starts the next level, so the
process that started the run has no part in this. Only Redis stores anything: no ledger, no budgets,
no limits; the agents of a worker that dies are lost.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from functools import cache
from typing import Any

from celery import Celery, chain, chord, signals
from celery.result import AsyncResult
from openai import AsyncOpenAI

from tests.benchmarks.protocol import Answer, serve
from tests.benchmarks.sdk_calls import ask, open_client
from tests.benchmarks.workloads import Workload, filled_prompt

THIS = "tests.benchmarks.peers.raw_celery"
THREADS = 256
TIMEOUT_S = 120.0
END_S = 10.0

app = Celery("raw", broker=os.environ["PEER_REDIS_URL"], backend=os.environ["PEER_REDIS_URL"])
app.conf.update(
    task_acks_late=False,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    redis_max_connections=1000,
    broker_transport_options={"max_connections": 1000},
)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one loop of a worker process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


@cache
def _client() -> AsyncOpenAI:
    return asyncio.run_coroutine_threadsafe(open_client(), _loop()).result()


@signals.worker_init.connect
def _open_client(**_: Any) -> None:
    _client()


@app.task(name="agent")
def agent(previous: str | None, batch: int, level: int, item: int) -> str:
    """Run one agent: wait in its thread for the process's loop."""
    text = filled_prompt(batch, level, item, previous)
    return asyncio.run_coroutine_threadsafe(ask(_client(), text), _loop()).result()


@app.task(name="next_level")
def next_level(answers: list[str], batch: int, level: int, levels: int, last_id: str) -> int:
    """Start the next level; the body of a level's chord."""
    start_level(answers, batch, level, levels, last_id)
    return level


@app.task(name="last_level", ignore_result=False)
def last_level(answers: list[str]) -> list[str]:
    """Return a result for the client to wait for; the body of the last chord."""
    return answers


def start_level(
    previous: Sequence[str | None], batch: int, level: int, levels: int, last_id: str
) -> None:
    """Send a level as a chord."""
    agents = [agent.s(text, batch, level, item) for item, text in enumerate(previous)]
    if level + 1 == levels:
        body = last_level.s().set(task_id=last_id)
    else:
        body = next_level.s(batch, level + 1, levels, last_id)
    chord(agents, body).apply_async()


def start_chain(batch: int, levels: int) -> "AsyncResult[Any]":
    """Send a run whose agents run one after the other."""
    first = agent.si(None, batch, 0, 0)
    between = [agent.s(batch, level, 0) for level in range(1, levels - 1)]
    last = agent.signature((batch, levels - 1, 0), ignore_result=False)
    return chain(first, *between, last).apply_async()


def run(workload: Workload) -> Answer:
    """Start all runs, and wait for the last result of each."""
    started_s = time.perf_counter()
    if workload.width == 1 and workload.levels > 1:
        results = [start_chain(batch, workload.levels) for batch in range(workload.runs)]
    else:
        results = []
        for batch in range(workload.runs):
            result = app.AsyncResult(str(uuid.uuid4()))
            start_level([None] * workload.width, batch, 0, workload.levels, result.id)
            results.append(result)
    answers = [result.get(timeout=TIMEOUT_S) for result in results]
    wall_s = time.perf_counter() - started_s
    for result in results:
        result.forget()
    assert all(answers)
    return Answer(wall_s=wall_s)


def _start_worker(number: int) -> subprocess.Popen[bytes]:
    options = ("-P", "threads", "-c", str(THREADS), "-n", f"raw{number}@%h")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", THIS, "--quiet", "worker", *options, *quiet],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )


def _wait_for(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(app.control.ping(timeout=0.5) or ()) < len(workers):
        if time.monotonic() > deadline_s or any(worker.poll() is not None for worker in workers):
            raise RuntimeError("the workers of raw Celery did not start")


def main() -> None:
    """Be a contender, with workers of its own."""
    workers = [_start_worker(number) for number in range(int(os.environ["PEER_WORKERS"]))]
    try:
        _wait_for(workers)
        serve(run, processes={"workers": [worker.pid for worker in workers]})
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(END_S)


if __name__ == "__main__":
    main()

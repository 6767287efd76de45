"""Load on a limiter by several processes, against a server that enforces limits.

`run_load` starts the simulator with limits and one process per worker; each worker takes a permit
from the cluster's limiter for every call, and calls over HTTP. What counts is what arrived there.
"""

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvloop
from redis.asyncio import Redis

from app.domain.policies import RateLimitConfig
from app.domain.usage import Usage
from app.llm.usage import anthropic_usage, openai_usage
from app.rate_limits.base import LimitRequest
from app.rate_limits.limiter import ClusterLimiter
from app.simulator import run_in_process

START_S = 20.0
LEAD_S = 0.5
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-5"}
THROTTLED = 429

#: Number of the call -> tokens of its prompt and of its answer.
Sizes = Callable[[int], tuple[int, int]]


def small(_: int) -> tuple[int, int]:
    """Calls that are all alike."""
    return 16, 4


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is called, and what the server allows.

    Attributes:
        name: For the table.
        provider: ``openai`` or ``anthropic``.
        server: The simulator's limit, as on its command line.
        limits: What the limiter is configured to.
        calls: How many.
        sizes: How large.
        latency_s: Of the server's answers.
    """

    name: str
    provider: str = "openai"
    server: str
    limits: RateLimitConfig
    calls: int
    sizes: Sizes = small
    latency_s: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        answered: Calls that ended with status 200.
        throttled: Answers of status 429.
        arrivals_s: When calls that were accepted arrived, sorted.
        amounts: What each of them counts at the server: prompt and output tokens.
        exchanges: Script calls of all workers.
        permits: Permits of all workers.
        cpu_s: CPU seconds of all workers while they called.
    """

    answered: int
    throttled: int
    arrivals_s: list[float]
    amounts: list[tuple[int, int]]
    exchanges: int
    permits: int
    cpu_s: float

    def used(self, *, rate: float, burst: float, amounts: list[float] | None = None) -> float:
        """The share of the limit that was used.

        Args:
            rate: Refill per second.
            burst: Capacity of the server's bucket.
            amounts: What each call counts; None: 1.
        """
        total = sum(amounts) if amounts is not None else len(self.arrivals_s)
        return (total - burst) / (rate * (self.arrivals_s[-1] - self.arrivals_s[0]))


@dataclass(kw_only=True)
class _Report:
    throttled: int = 0
    answered: int = 0
    exchanges: int = 0
    permits: int = 0
    cpu_s: float = 0.0
    sizes: list[tuple[int, int]] = field(default_factory=list)


def run_load(load: Load, *, processes: int, redis_url: str) -> Outcome:
    """Make all calls, spread evenly over so many processes.

    Raises:
        AssertionError: If a worker failed.
    """
    with run_in_process(
        "--latency", str(load.latency_s), "--limit", f"provider={load.provider},{load.server}"
    ) as server:
        task = {
            "redis_url": redis_url,
            "base_url": {
                "openai": server.openai_base_url,
                "anthropic": server.anthropic_base_url,
            }[load.provider],
            "provider": load.provider,
            "limits": dataclasses.asdict(load.limits),
        }
        sizes = [load.sizes(number) for number in range(load.calls)]
        workers = [
            start_worker(task | {"sizes": sizes[index::processes], "run": "the run"})
            for index in range(processes)
        ]
        reports = [finish(worker) for worker in go(workers)]
        records = [record for record in server.ledger() if record["status"] == 200]
    records.sort(key=lambda record: record["arrived_s"])
    return Outcome(
        answered=sum(report.answered for report in reports),
        throttled=sum(report.throttled for report in reports),
        arrivals_s=[record["arrived_s"] for record in records],
        amounts=[(record["input_tokens"], record["output_tokens"]) for record in records],
        exchanges=sum(report.exchanges for report in reports),
        permits=sum(report.permits for report in reports),
        cpu_s=sum(report.cpu_s for report in reports),
    )


Worker = subprocess.Popen[str]


def start_worker(task: Mapping[str, Any]) -> Worker:
    """A process that is ready to call and waits for the word."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.limit_load", json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(workers: list[Worker]) -> list[Worker]:
    """Let all workers call from the same moment on, once all are ready."""
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n", "a worker did not start"
    start_s = time.monotonic() + LEAD_S
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{start_s}\n")
        worker.stdin.flush()
    return workers


def finish(worker: Worker) -> _Report:
    """Wait for a worker's report."""
    output, _ = worker.communicate()
    assert worker.returncode == 0, "a worker failed"
    return _Report(**json.loads(output))


async def _work(task: Mapping[str, Any]) -> _Report:
    report = _Report()
    redis = Redis.from_url(task["redis_url"])
    limits = RateLimitConfig(**task["limits"])
    limiter = ClusterLimiter(redis, lambda provider, _: (f"{provider}/default", limits))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        task["base_url"].rstrip("/") + "/", connector=connector
    ) as http:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        start_s = float(await asyncio.to_thread(sys.stdin.readline))
        await asyncio.sleep(start_s - time.monotonic())
        cpu_s = time.process_time()
        await asyncio.gather(*(_call(limiter, http, task, size, report) for size in task["sizes"]))
        report.cpu_s = time.process_time() - cpu_s
    await limiter.flush()
    statistics = limiter.get_statistics()
    report.exchanges, report.permits = statistics["exchanges"], statistics["total_requests"]
    await limiter.close()
    await redis.aclose()
    return report


async def _call(
    limiter: ClusterLimiter,
    http: aiohttp.ClientSession,
    task: Mapping[str, Any],
    size: tuple[int, int],
    report: _Report,
) -> None:
    provider = task["provider"]
    path, body = _request(provider, *size)
    request = LimitRequest(
        provider=provider,
        model=MODELS[provider],
        run_id=task["run"],
        input_tokens=size[0],
        output_tokens=size[1],
    )
    while True:
        permit = await limiter.acquire(request)
        async with http.post(path, data=body, headers=_HEADERS) as response:
            answer = await response.json()
            headers = response.headers
        if response.status == THROTTLED:
            report.throttled += 1
            limiter.settle(permit, usage=None, headers=headers, throttled=True)
            continue
        assert response.status == 200, answer
        read: Callable[[Mapping[str, Any]], Usage] = (
            openai_usage if provider == "openai" else anthropic_usage
        )
        limiter.settle(permit, usage=read(answer["usage"]), headers=headers)
        report.answered += 1
        return


_HEADERS = {
    "Authorization": "Bearer key",
    "x-api-key": "key",
    "anthropic-version": "2023-06-01",
    "Content-Type": "application/json",
}


def _request(provider: str, prompt_tokens: int, output_tokens: int) -> tuple[str, bytes]:
    marker = f"[[sim:output_tokens={output_tokens}]]"
    prompt = marker.ljust(4 * prompt_tokens, "x")
    body = {
        "model": MODELS[provider],
        "max_tokens": output_tokens,
        "messages": [{"role": "user", "content": prompt}],
    }
    path = "chat/completions" if provider == "openai" else "v1/messages"
    return path, json.dumps(body).encode()


if __name__ == "__main__":
    result = uvloop.run(_work(json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(dataclasses.asdict(result)))

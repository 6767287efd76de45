"""The contender plain asyncio, the floor: the same calls of the SDK, gathered, and nothing else.

Nothing is stored, limited, paid for or retried, and what is in flight is lost with the process.
"""

import asyncio
import time

import httpx2
from openai import AsyncOpenAI, DefaultAioHttpClient

from tests.benchmarks.contenders import Answer, serve
from tests.benchmarks.workloads import MAX_TOKENS, MODEL, Workload, agent_name, prompt

# As the workers have it: connections outlive the pause between two measurements.
LIMITS = httpx2.Limits(max_connections=1000, keepalive_expiry=30)


class PlainAsyncio:
    """One client and one loop for all workloads."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._open())

    def run(self, workload: Workload) -> Answer:
        """Run all batches side by side."""
        started_s = time.perf_counter()
        self._runner.run(self._all(workload))
        return Answer(wall_s=time.perf_counter() - started_s)

    def close(self) -> None:
        """Close the connections and the loop."""
        self._runner.run(self._client.close())
        self._runner.close()

    async def _open(self) -> AsyncOpenAI:
        return AsyncOpenAI(http_client=DefaultAioHttpClient(limits=LIMITS), max_retries=0)

    async def _all(self, workload: Workload) -> None:
        await asyncio.gather(*(self._batch(workload, number) for number in range(workload.runs)))

    async def _batch(self, workload: Workload, number: int) -> None:
        known: dict[str, object] = {"batch": number}
        for level in range(workload.levels):
            texts = (prompt(level, item).format_map(known) for item in range(workload.width))
            answers = await asyncio.gather(*map(self._call, texts))
            known |= {agent_name(level, item): text for item, text in enumerate(answers)}

    async def _call(self, text: str) -> str:
        completion = await self._client.chat.completions.create(
            model=MODEL,
            max_tokens=MAX_TOKENS,
            messages=[{"role": "user", "content": text}],
        )
        return completion.choices[0].message.content or ""


if __name__ == "__main__":
    plain = PlainAsyncio()
    serve(plain.run)
    plain.close()

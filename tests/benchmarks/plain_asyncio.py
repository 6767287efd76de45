"""The contender plain asyncio, the lower bound: only the calls of the SDK, gathered.

It stores, limits, books and retries nothing, and calls in flight are lost with the process.
"""

import asyncio
import time

from tests.benchmarks.protocol import Answer, Times, serve
from tests.benchmarks.sdk_calls import ask, open_client
from tests.benchmarks.workloads import Workload, agent_name, prompt


class PlainAsyncio:
    """One client and one loop for all workloads."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(open_client())

    def run(self, workload: Workload) -> Answer:
        """Run all batches side by side."""
        started_s = time.perf_counter()
        times_s = self._runner.run(self._all(workload))
        return Answer(wall_s=time.perf_counter() - started_s, times_s=times_s)

    def close(self) -> None:
        """Close the connections and the loop."""
        self._runner.run(self._client.close())
        self._runner.close()

    async def _all(self, workload: Workload) -> list[Times]:
        batches = (self._batch(workload, number) for number in range(workload.runs))
        return await asyncio.gather(*batches)

    async def _batch(self, workload: Workload, number: int) -> Times:
        started_s = time.monotonic()
        known: dict[str, object] = {"batch": number}
        for level in range(workload.levels):
            texts = (prompt(level, item).format_map(known) for item in range(workload.width))
            answers = await asyncio.gather(*(ask(self._client, text) for text in texts))
            known |= {agent_name(level, item): text for item, text in enumerate(answers)}
        return started_s, started_s, time.monotonic()


if __name__ == "__main__":
    plain = PlainAsyncio()
    serve(plain.run)
    plain.close()

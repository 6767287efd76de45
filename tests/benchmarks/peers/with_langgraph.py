"""LangGraph: a node per agent, checkpoints in Postgres through a pool, one process.

Durability is the default, "async": a step's checkpoint is written while the next step runs. A
node's own result is written as soon as the node has ended. No ledger, budgets or limits; a run
whose process dies continues when its thread is invoked again.
"""

import asyncio
import operator
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.protocol import Answer, Times, serve
from tests.benchmarks.sdk_calls import ask, open_client
from tests.benchmarks.workloads import Workload, agent_name, filled_prompt

#: A saver runs one call at a time, so several share the pool; more than this do not help.
SAVERS = 10
# From LangGraph's documentation.
CONNECTION = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


class State(TypedDict):
    """The state that nodes read and write.

    Attributes:
        batch: Number of the run.
        answers: Answers so far, by name of the agent.
    """

    batch: int
    answers: Annotated[dict[str, str], operator.or_]


class LangGraph:
    """One client, pool and loop for all workloads."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._parts = AsyncExitStack()
        self._graphs: dict[Workload, list[Any]] = {}
        self._runner.run(self._open())

    def run(self, workload: Workload) -> Answer:
        """Invoke all runs side by side, each a thread of its own."""
        if workload not in self._graphs:
            self._graphs[workload] = self._runner.run(self._compile(workload))
        started_s = time.perf_counter()
        ended = self._runner.run(self._all(workload))
        wall_s = time.perf_counter() - started_s
        assert sum(len(state["answers"]) for state, _ in ended) == workload.agents
        return Answer(wall_s=wall_s, times_s=[times_s for _, times_s in ended])

    def close(self) -> None:
        """Close connections and loop."""
        self._runner.run(self._parts.aclose())
        self._runner.close()

    async def _open(self) -> None:
        self._client = await open_client()
        self._parts.push_async_callback(self._client.close)
        self._pool = await self._parts.enter_async_context(
            AsyncConnectionPool(
                os.environ["PEER_DATABASE_URL"],
                min_size=SAVERS,
                max_size=SAVERS,
                kwargs=CONNECTION,
                open=False,
            )
        )
        await AsyncPostgresSaver(self._pool).setup()

    async def _all(self, workload: Workload) -> list[tuple[State, Times]]:
        return await asyncio.gather(
            *(self._invoke(workload, batch) for batch in range(workload.runs))
        )

    async def _invoke(self, workload: Workload, batch: int) -> tuple[State, Times]:
        started_s = time.monotonic()
        graphs = self._graphs[workload]
        state: State = await graphs[batch % len(graphs)].ainvoke(
            {"batch": batch, "answers": {}},
            {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": 100},
        )
        return state, (started_s, started_s, time.monotonic())

    async def _compile(self, workload: Workload) -> list[Any]:
        builder = StateGraph(State)
        for level, item in workload.places():
            name = agent_name(level, item)
            builder.add_node(name, self._node(level, item))
            builder.add_edge(agent_name(level - 1, item) if level else START, name)
        return [
            builder.compile(checkpointer=AsyncPostgresSaver(self._pool))
            for _ in range(min(SAVERS, workload.runs))
        ]

    def _node(self, level: int, item: int) -> Callable[[State], Awaitable[dict[str, Any]]]:
        name, before = agent_name(level, item), agent_name(level - 1, item)

        async def agent(state: State) -> dict[str, Any]:
            text = filled_prompt(state["batch"], level, item, state["answers"].get(before))
            return {"answers": {name: await ask(self._client, text)}}

        return agent


if __name__ == "__main__":
    langgraph = LangGraph()
    serve(langgraph.run)
    langgraph.close()

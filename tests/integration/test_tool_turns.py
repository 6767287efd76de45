"""Conversations in the database: the attempts that may write and continue them, and their rows."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.status import AgentStatus, WorkflowStatus
from app.storage import control, prune, stopping, turns
from app.storage.claims import ClaimedAgent
from app.storage.records import Record
from app.storage.turns import StoredTurn, ToolCallRecord, ToolState, TurnRecord
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request

pytestmark = pytest.mark.anyio

RUNNING, COMPLETED, UNKNOWN = ToolState.RUNNING, ToolState.COMPLETED, ToolState.UNKNOWN
MESSAGE = '{"role":"assistant","content":"\\u0000","tool_calls":[]}'


def turn(number: int = 0) -> TurnRecord:
    id_: UUID = uuid7()
    return TurnRecord(id=id_, number=number, call_id=uuid7(), message=MESSAGE)


def tool_call(of: TurnRecord, position: int = 0, **fields: Any) -> ToolCallRecord:
    made = ToolCallRecord(
        turn_id=of.id,
        position=position,
        call_id=f"call_{position}",
        tool="look_up",
        arguments='{"key": "a"}',
        state=RUNNING,
    )
    return replace(made, **fields)


def done(started: ToolCallRecord, result: str = "42") -> ToolCallRecord:
    return replace(started, state=COMPLETED, result=result, seconds=0.25)


def record(of: ClaimedAgent, *tools: ToolCallRecord, **fields: Any) -> Record:
    return Record(agent_run_id=of.id, attempt=of.attempt, tools=tools, **fields)


async def claimed(cluster: Cluster, run_id: UUID, **options: Any) -> ClaimedAgent:
    (one,) = (await cluster.claim(run_id, **options)).agents
    return one


async def conversation(cluster: Cluster, of: ClaimedAgent) -> Sequence[StoredTurn]:
    (stored,) = await cluster.commit(partial(turns.read_turns, agent_run_ids=[of.id]))
    return stored


async def states(cluster: Cluster) -> list[str]:
    rows = await cluster.rows("SELECT state FROM tool_calls ORDER BY turn_id, position")
    return [row.state for row in rows]


async def told(cluster: Cluster) -> list[str]:
    rows = await cluster.rows("SELECT type FROM events WHERE type LIKE 'tool%' ORDER BY id")
    return [row.type for row in rows]


async def test_a_turn_its_cost_and_the_start_of_its_tools_are_one_commit(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    a = await claimed(cluster, run_id)
    held, first = hold_request(a), turn()
    await cluster.hold(held)

    may_run = await cluster.record(
        record(a, tool_call(first), turn=first, calls=(call(a, held, "0.1"),))
    )

    assert may_run == [True]
    assert await conversation(cluster, a) == (StoredTurn(turn=first, calls={0: tool_call(first)}),)
    assert len(await cluster.rows("SELECT 1 FROM cost_entries")) == 1
    assert await told(cluster) == ["tool_started"]


async def test_writing_a_batch_again_changes_and_tells_nothing(cluster: Cluster) -> None:
    a, first = await claimed(cluster, await cluster.start(agent("a"))), turn()
    start, end = record(a, tool_call(first), turn=first), record(a, done(tool_call(first)))

    answers = [await cluster.record(one) for one in (start, start, end, end, start)]

    ((_, calls),) = [(one.turn, one.calls) for one in await conversation(cluster, a)]
    assert answers == [[True]] * 5
    assert calls == {0: replace(done(tool_call(first)), seconds=None)}
    assert await told(cluster) == ["tool_started", "tool_finished"]
    ((data,),) = await cluster.rows("SELECT data FROM events WHERE type = 'tool_finished'")
    assert data == {"agent": "a", "tool": "look_up", "seconds": 0.25}


async def test_an_attempt_that_has_lost_its_agent_can_neither_start_nor_finish_a_tool(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    lost, first = await claimed(cluster, run_id, lease_s=-1.0), turn()
    await cluster.record(record(lost, tool_call(first), turn=first))
    await cluster.recover()
    current = await claimed(cluster, run_id)

    late = await cluster.record(record(lost, done(tool_call(first))))
    another = turn(1)
    started = await cluster.record(record(lost, tool_call(another), turn=another))

    assert (late, started) == ([False], [False])
    fence = await cluster.commit(partial(turns.why_not, agent_run_id=lost.id, attempt=lost.attempt))
    assert fence.lost
    (stored,) = await conversation(cluster, current)
    assert (stored.turn.id, stored.calls[0].state) == (first.id, UNKNOWN)
    assert await told(cluster) == ["tool_started", "tool_unknown"]


async def test_a_tool_whose_end_is_unknown_may_be_started_again_by_the_next_attempt(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    lost, first = await claimed(cluster, run_id, lease_s=-1.0), turn()
    await cluster.record(record(lost, tool_call(first), tool_call(first, 1), turn=first))
    await cluster.record(record(lost, done(tool_call(first, 1))))
    await cluster.recover()
    current = await claimed(cluster, run_id)

    await cluster.record(record(current, tool_call(first)))
    again = await states(cluster)
    await cluster.record(record(current, done(tool_call(first))))

    assert again == ["running", "completed"]
    assert await states(cluster) == ["completed", "completed"]
    rows = await cluster.rows("SELECT attempt, result FROM tool_calls ORDER BY position")
    assert rows == [(2, "42"), (1, "42")]


async def cancel(connection: AsyncConnection, run_id: UUID) -> None:
    await stopping.stop(connection, run_id, as_=WorkflowStatus.CANCELLED, reason="enough")


@pytest.mark.parametrize("step", [control.pause, cancel])
async def test_a_run_that_rests_or_is_cancelled_starts_no_tool_but_keeps_what_has_run(
    cluster: Cluster, step: Any
) -> None:
    run_id = await cluster.start(agent("a"))
    a, first, second = await claimed(cluster, run_id), turn(), turn(1)
    await cluster.record(record(a, tool_call(first), turn=first))
    await cluster.commit(partial(step, run_id=run_id))

    await cluster.record(record(a, done(tool_call(first))))
    may_run = await cluster.record(record(a, tool_call(second), turn=second))

    assert may_run == [False]
    assert await states(cluster) == ["completed"]
    stored = await conversation(cluster, a)
    assert [one.turn.id for one in stored] == [first.id, second.id]
    fence = await cluster.commit(partial(turns.why_not, agent_run_id=a.id, attempt=a.attempt))
    assert (fence.lost, fence.paused) == (False, step is control.pause)
    assert fence.stopping is (step is not control.pause)


async def test_retrying_what_failed_begins_a_new_conversation_and_keeps_the_old_one(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    a, first = await claimed(cluster, run_id), turn()
    await cluster.record(record(a, tool_call(first), turn=first))
    stopped = replace(ending(a, AgentStatus.FAILED, error="no"), tools=(done(tool_call(first)),))
    await cluster.record(stopped)
    await cluster.advance(run_id, 0)

    assert await cluster.commit(partial(control.retry_failed, run_id=run_id))

    assert await conversation(cluster, a) == ()
    assert await states(cluster) == ["completed"]
    assert await cluster.rows("SELECT set_aside FROM turns") == [(True,)]


async def test_pruning_removes_turns_and_tool_calls(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    a, first = await claimed(cluster, run_id), turn()
    await cluster.record(record(a, tool_call(first), turn=first))
    await cluster.record(ending(a))
    await cluster.advance(run_id, 0)
    expected = await cluster.commit(partial(prune.count_prunable, older_than_s=0))

    removed = await cluster.commit(partial(prune.prune_batch, older_than_s=0))

    assert removed == expected
    assert removed.tool_calls == 1
    assert await cluster.rows("SELECT 1 FROM turns UNION ALL SELECT 1 FROM tool_calls") == []


async def test_an_agent_without_tools_writes_and_reads_nothing_of_this(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    a = await claimed(cluster, run_id)
    for table in ("turns", "tool_calls"):
        statement = text(f"ALTER TABLE {table} RENAME TO gone_{table}")
        await cluster.commit(lambda c, statement=statement: c.execute(statement))  # type: ignore[misc]

    assert await cluster.record(ending(a)) == [True]


async def test_a_tool_call_with_an_end_has_a_result(cluster: Cluster) -> None:
    a, first = await claimed(cluster, await cluster.start(agent("a"))), turn()

    with pytest.raises(IntegrityError, match="ck_tool_calls_result"):
        await cluster.record(record(a, tool_call(first, state=COMPLETED), turn=first))

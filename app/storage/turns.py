"""Stores conversations with tools; each turn and each tool call is stored before it has effects.

One transaction writes a turn, the cost entry of its call, and the start of the tools that the turn
requests. Therefore a new attempt knows which tools have finished and which tools may have run, and
continues from this point. All writes of this module are fenced: only the attempt that owns the
agent run may write.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.session import dumps

# turns: [{id, agent_run_id, number, attempt, call_id, message}].
ADD_TURNS: TextClause = text("""
    INSERT INTO turns (id, agent_run_id, number, attempt, call_id, message)
    SELECT id, agent_run_id, number, attempt, call_id, message
    FROM jsonb_to_recordset(CAST(:turns AS jsonb)) AS t(
        id uuid, agent_run_id uuid, number int, attempt int, call_id uuid, message text)
    ON CONFLICT (id) DO NOTHING
""")

# calls: [{turn_id, position, agent_run_id, attempt, ...}]. If a run is paused or is being stopped,
# the run starts no tool, but the results of tools are still written. A tool call that has ended is
# not changed. A repeated batch changes nothing and writes no events. The statement returns the
# agent runs whose tools may run.
WRITE_TOOL_CALLS: TextClause = text("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:calls AS jsonb)) AS g(
            turn_id uuid, position int, agent_run_id uuid, attempt int, call_id text, tool text,
            arguments text, state text, result text, seconds float8)
    ), owner AS (
        SELECT a.id, a.run_id, a.name, r.status = 'running' AND r.stop_as IS NULL AS going
        FROM agent_runs a JOIN runs r ON r.id = a.run_id
        WHERE a.id IN (SELECT agent_run_id FROM given)
    ), written AS (
        INSERT INTO tool_calls AS t (turn_id, position, agent_run_id, attempt, call_id, tool,
            arguments, state, result, seconds, finished_at)
        SELECT g.turn_id, g.position, g.agent_run_id, g.attempt, g.call_id, g.tool,
            g.arguments, g.state, g.result, g.seconds,
            CASE WHEN g.state <> 'running' THEN clock_timestamp() END
        FROM given g JOIN owner ON owner.id = g.agent_run_id JOIN turns ON turns.id = g.turn_id
        WHERE owner.going OR g.state <> 'running'
        ORDER BY g.turn_id, g.position
        ON CONFLICT (turn_id, position) DO UPDATE SET attempt = excluded.attempt,
            state = excluded.state, result = excluded.result, seconds = excluded.seconds,
            started_at = CASE WHEN excluded.state = 'running'
                THEN excluded.started_at ELSE t.started_at END,
            finished_at = excluded.finished_at
        WHERE t.state IN ('running', 'unknown')
            AND (t.state <> excluded.state OR t.attempt < excluded.attempt)
        RETURNING agent_run_id, attempt, position, tool, state, seconds
    ), noted AS (
        INSERT INTO events (run_id, agent_run_id, attempt, type, data)
        SELECT o.run_id, w.agent_run_id, w.attempt,
            CASE w.state WHEN 'running' THEN 'tool_started' WHEN 'completed' THEN 'tool_finished'
                WHEN 'failed' THEN 'tool_failed' ELSE 'tool_unknown' END,
            jsonb_strip_nulls(jsonb_build_object('agent', o.name, 'tool', w.tool,
                'seconds', round(CAST(w.seconds AS numeric), 3)))
        FROM written w JOIN owner o ON o.id = w.agent_run_id ORDER BY w.position
    )
    SELECT id FROM owner WHERE going
""")

# Marks the tool calls that were running when their worker went silent. The transaction has locked
# the agent runs.
LOSE_TOOL_CALLS: TextClause = text("""
    WITH lost AS (
        UPDATE tool_calls SET state = 'unknown', finished_at = clock_timestamp()
        WHERE agent_run_id = ANY(CAST(:ids AS uuid[])) AND state = 'running'
        RETURNING agent_run_id, attempt, tool
    )
    INSERT INTO events (run_id, agent_run_id, attempt, type, data)
    SELECT a.run_id, a.id, lost.attempt, 'tool_unknown',
        jsonb_build_object('agent', a.name, 'tool', lost.tool)
    FROM lost JOIN agent_runs a ON a.id = lost.agent_run_id
""")

READ_TURNS: TextClause = text("""
    SELECT t.id, t.agent_run_id, t.number, t.call_id, t.message, (
        SELECT jsonb_agg(jsonb_build_object('position', c.position, 'call_id', c.call_id,
            'tool', c.tool, 'arguments', c.arguments, 'state', c.state, 'result', c.result))
        FROM tool_calls c WHERE c.turn_id = t.id
    ) AS calls
    FROM turns t WHERE t.agent_run_id = ANY(CAST(:ids AS uuid[])) AND NOT t.set_aside
    ORDER BY t.agent_run_id, t.number
""")

WHY_NOT: TextClause = text("""
    SELECT a.attempt, a.status, r.stop_as, r.status AS run_status
    FROM agent_runs a JOIN runs r ON r.id = a.run_id WHERE a.id = :id
""")


class ToolState(StrEnum):
    """The known state of a tool call."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"  # the tool call has ended, and the model gets the tool's error
    UNKNOWN = "unknown"  # the call was stopped or its worker died; the tool may have done its work


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnRecord:
    """An answer that asked for tools, or that the provider has paused.

    Attributes:
        id: Id of the turn.
        number: The turn's place in the conversation, from 0.
        call_id: Id of the call that returned the answer, as in the ledger.
        message: The assistant's message as JSON, exactly as the provider must get it back.
    """

    id: UUID
    number: int
    call_id: UUID | None
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallRecord:
    """The known facts of one tool call.

    Attributes:
        turn_id: The turn that asked for the tool call.
        position: The tool call's place among the turn's tool calls, from 0.
        call_id: The provider's id of the tool call.
        tool: Name of the tool, exactly as the model wrote it.
        arguments: The arguments, exactly as the model wrote them.
        state: The state of the tool call.
        result: The text for the model, if the tool call has ended.
        seconds: Duration of the tool call, if it has ended.
    """

    turn_id: UUID
    position: int
    call_id: str
    tool: str
    arguments: str
    state: ToolState
    result: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTurn:
    """A turn of an earlier attempt, with the turn's stored tool calls by position."""

    turn: TurnRecord
    calls: dict[int, ToolCallRecord]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fence:
    """The reasons why tools must not run; the first true attribute is the reason that counts."""

    lost: bool
    stopping: bool
    paused: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnWrites:
    """The part of a conversation that one agent run writes in one step."""

    agent_run_id: UUID
    attempt: int
    turn: TurnRecord | None
    tools: Sequence[ToolCallRecord]


async def write_turns(connection: AsyncConnection, writes: Sequence[TurnWrites]) -> set[UUID]:
    """Write turns and tool calls of locked agent runs; the given attempts own the agent runs.

    Args:
        connection: Inside a transaction.
        writes: The writes, each of a different agent run.

    Returns:
        The agent runs whose tools may run. The run of such an agent run is running and is not being
        stopped.
    """
    turns, calls = [], []
    for write in writes:
        owner = {"agent_run_id": write.agent_run_id, "attempt": write.attempt}
        turns += [asdict(write.turn) | owner] if write.turn else []
        calls += [asdict(call) | owner for call in write.tools]
    if turns:
        await connection.execute(ADD_TURNS, {"turns": dumps(turns)})
    return set(await connection.scalars(WRITE_TOOL_CALLS, {"calls": dumps(calls)}))


async def lose_tool_calls(connection: AsyncConnection, agent_run_ids: Sequence[UUID]) -> None:
    """Mark the running tool calls of agent runs with silent workers as ``unknown``."""
    await connection.execute(LOSE_TOOL_CALLS, {"ids": list(agent_run_ids)})


async def read_turns(
    connection: AsyncConnection, agent_run_ids: Sequence[UUID]
) -> list[tuple[StoredTurn, ...]]:
    """Read the conversations of agent runs, in the given order; a conversation may be empty."""
    found: dict[UUID, list[StoredTurn]] = defaultdict(list)
    for row in await connection.execute(READ_TURNS, {"ids": list(agent_run_ids)}):
        turn = TurnRecord(id=row.id, number=row.number, call_id=row.call_id, message=row.message)
        calls = {call["position"]: _tool_call(row.id, call) for call in row.calls or ()}
        found[row.agent_run_id].append(StoredTurn(turn=turn, calls=calls))
    return [tuple(found[id_]) for id_ in agent_run_ids]


async def why_not(connection: AsyncConnection, agent_run_id: UUID, attempt: int) -> Fence:
    """Read the reasons why the tools of an attempt must not run now."""
    row = (await connection.execute(WHY_NOT, {"id": agent_run_id})).one_or_none()
    if row is None:
        return Fence(lost=True, stopping=False, paused=False)
    return Fence(
        lost=row.attempt != attempt or row.status != "running",
        stopping=row.stop_as is not None,
        paused=row.run_status == "paused",
    )


def _tool_call(turn_id: UUID, call: dict[str, Any]) -> ToolCallRecord:
    return ToolCallRecord(**call | {"turn_id": turn_id, "state": ToolState(call["state"])})

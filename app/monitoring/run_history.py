"""The past and the present of one run, read once for reports and explanations.

The items of a for_each do not appear by themselves: the items' attempts, calls and events appear
under the name of the agent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.monitoring.progress import AgentProgress, RunProgress, read_progress

OWNERS = """
    WITH owned AS (
        SELECT a.*, coalesce(p.name, a.name) AS owner FROM agent_runs a
        LEFT JOIN agent_runs p ON p.id = a.parent_id WHERE a.run_id = :run_id
    )
"""
READ_NOW: TextClause = text("SELECT clock_timestamp() AS now")
READ_DEPENDENCIES: TextClause = text("""
    SELECT name, dependencies FROM agent_runs WHERE run_id = :run_id AND parent_id IS NULL
""")
READ_ATTEMPTS: TextClause = text(f"""{OWNERS}
    SELECT o.owner AS agent, o.item_index AS item, t.number, t.worker, t.outcome, t.error,
        t.error_class, t.started_at, t.finished_at, t.finish_reason
    FROM owned o JOIN attempts t ON t.agent_run_id = o.id ORDER BY t.started_at, t.number
""")  # noqa: S608  a constant of this module
# A corrected estimate and its correcting entry add up to zero, so the two entries are left out.
READ_CALLS: TextClause = text(f"""{OWNERS}
    SELECT o.owner AS agent, c.provider, c.model, c.module, c.kind, c.outcome, c.cost_usd,
        c.created_at AS ended_at, c.seconds,
        c.input_tokens + c.cached_tokens + c.cache_write_tokens + c.cache_write_1h_tokens
            AS prompt_tokens, c.output_tokens, c.finish_reason
    FROM cost_entries c JOIN owned o ON o.id = c.agent_run_id
    WHERE c.run_id = :run_id AND c.corrects IS NULL AND NOT EXISTS (
        SELECT FROM cost_entries back
        WHERE back.run_id = :run_id AND back.call_id = c.call_id AND back.corrects = c.kind
    ) ORDER BY c.id
""")  # noqa: S608
READ_TOOLS: TextClause = text(f"""{OWNERS}
    SELECT o.owner AS agent, t.state, t.started_at, t.finished_at
    FROM owned o JOIN tool_calls t ON t.agent_run_id = o.id ORDER BY t.started_at
""")  # noqa: S608
READ_EVENTS: TextClause = text(f"""{OWNERS}
    SELECT e.type, e.at, e.data, o.owner AS agent
    FROM events e LEFT JOIN owned o ON o.id = e.agent_run_id
    WHERE e.run_id = :run_id AND e.type <> ALL(CAST(:but AS text[])) ORDER BY e.id
""")  # noqa: S608
# The waits that each attempt recorded, and the periods in which agents were handed back. The period
# of a handed-back agent ends when the agent is ready again, so the period includes no wait for a
# worker.
READ_WAITS: TextClause = text(f"""{OWNERS}
    SELECT o.owner AS agent, w.waits_for, sum(w.seconds) AS seconds, max(w.seconds) AS longest_s,
        count(*) AS count
    FROM (
        SELECT e.agent_run_id, waits.key AS waits_for, waits.value::float8 AS seconds
        FROM events e CROSS JOIN LATERAL jsonb_each_text(e.data -> 'waited') waits
        WHERE e.run_id = :run_id
        UNION ALL
        SELECT e.agent_run_id, e.data ->> 'waits_for', extract(epoch FROM least(t.started_at - e.at,
            make_interval(secs => (e.data ->> 'ready_in_s')::float8)))::float8
        FROM events e
        JOIN attempts t ON t.agent_run_id = e.agent_run_id AND t.number = e.attempt + 1
        WHERE e.run_id = :run_id AND e.type = 'agent_waiting'
    ) w JOIN owned o ON o.id = w.agent_run_id
    GROUP BY o.level, o.owner, w.waits_for ORDER BY o.level, o.owner, w.waits_for
""")  # noqa: S608
#: Events that the attempts and tool calls show as well.
SEEN_IN_ATTEMPTS = ("agent_started", "agent_completed", "tool_started", "tool_finished")
READ_NOW_OF_AGENTS: TextClause = text(f"""{OWNERS}
    SELECT o.owner AS agent, o.status, o.ready_at, o.waits_for, o.retries,
        q.since AS money_since, q.amount_usd AS money_usd,
        coalesce(q.budget_ids, '{{}}') AS budgets, h.created_at AS calling_since,
        h.provider || '/' || h.model AS called,
        t.tool, o.provider, o.model, o.level, o.worker
    FROM owned o
    LEFT JOIN hold_queue q ON q.agent_run_id = o.id AND q.attempt = o.attempt
    LEFT JOIN LATERAL (
        SELECT * FROM holds WHERE agent_run_id = o.id AND attempt = o.attempt
        ORDER BY created_at DESC LIMIT 1
    ) h ON true
    LEFT JOIN LATERAL (
        SELECT tool FROM tool_calls WHERE agent_run_id = o.id AND state = 'running'
        ORDER BY started_at DESC LIMIT 1
    ) t ON true
    WHERE o.status IN ('pending', 'running')
    ORDER BY o.level, o.position, o.item_index
""")  # noqa: S608
READ_BUDGETS: TextClause = text("""
    SELECT id, scope, subject, period, limit_usd, spent_usd, held_usd FROM budgets
    WHERE id = ANY(CAST(:ids AS uuid[]))
""")
# The costs of the same agents in earlier runs of any version of the workflow.
READ_USUAL: TextClause = text("""
    SELECT agent, percentile_cont(0.5) WITHIN GROUP (ORDER BY cost_usd)::numeric AS cost_usd,
        count(*) AS runs
    FROM (
        SELECT c.run_id, split_part(c.agent, '[', 1) AS agent, sum(c.cost_usd) AS cost_usd
        FROM cost_entries c JOIN (
            SELECT r.id FROM runs r JOIN workflows w ON w.id = r.workflow_id
            WHERE w.name = :workflow AND r.id < :run_id AND r.status = 'completed'
            ORDER BY r.id DESC LIMIT 20
        ) earlier ON earlier.id = c.run_id
        GROUP BY c.run_id, split_part(c.agent, '[', 1)
    ) costs GROUP BY agent
""")

Fact = TypeVar("Fact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try of an agent, or of an agent's item."""

    agent: str
    item: int | None = None
    number: int
    worker: str
    outcome: str
    error: str | None = None
    error_class: str | None = None
    started_at: datetime
    finished_at: datetime | None = None
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One entry of the ledger; ``seconds`` is None if the call's end is not known."""

    agent: str
    provider: str
    model: str
    module: str
    kind: str
    outcome: str
    cost_usd: Decimal

    ended_at: datetime
    seconds: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """One call of a tool."""

    agent: str
    state: str
    started_at: datetime
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """The past waits of an agent that have the same cause.

    Attributes:
        agent: The agent.
        waits_for: Name of the cause in the history, such as ``openai/default requests_per_minute``.
        seconds: Sum of the waits, over all attempts and items.
        longest_s: Seconds of the longest wait.
        count: Number of the waits.
    """

    agent: str
    waits_for: str
    seconds: float
    longest_s: float
    count: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEvent:
    """One line of the history; ``agent`` is None if the line concerns the run itself."""

    type: str
    at: datetime
    data: Mapping[str, Any]
    agent: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetState:
    """A budget for which an agent waits."""

    id: UUID
    scope: str
    subject: str
    period: str
    limit_usd: Decimal
    spent_usd: Decimal
    held_usd: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The state of one agent run that has not ended.

    Attributes:
        agent: Name of the agent.
        status: ``pending`` or ``running``.
        level: Level of the agent, from 0.
        provider: Provider of the agent, which is also the agent's queue.
        model: Model of the agent.
        ready_at: Earliest time at which a worker may claim the agent.
        waits_for: The cause of the wait (a limit, money or a circuit) if the agent was handed back;
            otherwise None.
        retries: Number of retries so far.
        worker: Worker that runs the agent; None if no worker runs the agent.

        money_since: Time at which the agent's hold began to wait for money, or None.
        money_usd: Number of dollars for which the hold waits.
        budgets: Budgets that the hold needs.
        calling_since: Time at which the money of the current call was held, or None.
        called: Provider and model of the current call, such as ``openai/gpt-4o``.
        tool: Tool that is running, or None.
    """

    agent: str
    status: str
    level: int
    provider: str
    model: str
    ready_at: datetime
    waits_for: str | None = None
    retries: int = 0
    worker: str | None = None
    money_since: datetime | None = None
    money_usd: Decimal | None = None
    budgets: tuple[BudgetState, ...] = ()
    calling_since: datetime | None = None
    called: str | None = None
    tool: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """A run with all its facts except inputs and outputs.

    Attributes:
        now: The database's clock at the time of reading.
        run: The run and its agents.
        dependencies: Dependencies by agent.
        attempts: Attempts by time.
        calls: Entries of the ledger, in order.
        tools: Calls of tools, by time.
        events: Events that attempts and tool calls do not show, in order.
        waits: Waits that are over, by agent.
        standing: The agent runs that have not ended.
        usual_usd: Median cost of each agent in earlier runs of this workflow, if there are at least
            three earlier runs.
    """

    now: datetime
    run: RunProgress
    dependencies: Mapping[str, tuple[str, ...]]
    attempts: tuple[Attempt, ...] = ()
    calls: tuple[Call, ...] = ()
    tools: tuple[ToolUse, ...] = ()
    events: tuple[HistoryEvent, ...] = ()
    waits: tuple[Wait, ...] = ()
    standing: tuple[Standing, ...] = ()
    usual_usd: Mapping[str, Decimal] = field(default_factory=dict)

    def agent(self, name: str) -> AgentProgress | None:
        """Find an agent by its name."""
        return next((agent for agent in self.run.agents if agent.name == name), None)


def superseded(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts that were followed by another attempt of the same agent run."""
    last = {(each.agent, each.item): each.number for each in attempts}
    return [each for each in attempts if each.number < last[each.agent, each.item]]


#: With fewer earlier runs than this, an agent has no usual cost.
ENOUGH_RUNS = 3


async def read_history(connection: AsyncConnection, run_id: UUID) -> RunHistory:
    """Read all facts of a run.

    Args:
        connection: A connection inside a transaction.
        run_id: The run.

    Raises:
        UnknownRun: If there is no such run.
    """
    present = await read_present(connection, run_id)
    values = {"run_id": run_id}
    usual = await connection.execute(READ_USUAL, {**values, "workflow": present.run.workflow})
    events = {**values, "but": list(SEEN_IN_ATTEMPTS)}
    return replace(
        present,
        attempts=await _facts(connection, Attempt, READ_ATTEMPTS, values),
        calls=await _facts(connection, Call, READ_CALLS, values),
        tools=await _facts(connection, ToolUse, READ_TOOLS, values),
        events=await _facts(connection, HistoryEvent, READ_EVENTS, events),
        waits=await _facts(connection, Wait, READ_WAITS, values),
        usual_usd={row.agent: row.cost_usd for row in usual if row.runs >= ENOUGH_RUNS},
    )


async def read_present(connection: AsyncConnection, run_id: UUID) -> RunHistory:
    """Read a run without its past; this reading is cheap enough to be done every second.

    Raises:
        UnknownRun: If there is no such run.
    """
    return RunHistory(
        run=await read_progress(connection, run_id),
        # All times of a run are measured by the database's clock.
        now=await connection.scalar(READ_NOW),
        dependencies={
            row.name: tuple(row.dependencies)
            for row in await connection.execute(READ_DEPENDENCIES, {"run_id": run_id})
        },
        standing=await _standing(connection, run_id),
    )


async def _standing(connection: AsyncConnection, run_id: UUID) -> tuple[Standing, ...]:
    """Read the state of the agent runs that have not ended."""
    rows = (await connection.execute(READ_NOW_OF_AGENTS, {"run_id": run_id})).mappings().all()
    ids = sorted({id_ for row in rows for id_ in row["budgets"]})
    found = await _facts(connection, BudgetState, READ_BUDGETS, {"ids": ids}) if ids else ()
    budgets = {budget.id: budget for budget in found}
    return tuple(
        Standing(
            **{
                **row,
                "budgets": tuple(budgets[id_] for id_ in row["budgets"] if id_ in budgets),
            }
        )
        for row in rows
    )


async def _facts(
    connection: AsyncConnection,
    kind: type[Fact],
    statement: TextClause,
    values: Mapping[str, Any],
) -> tuple[Fact, ...]:
    rows = await connection.execute(statement, values)
    return tuple(kind(**row) for row in rows.mappings())

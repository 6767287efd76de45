"""The past and the present of one whole run, read once for reports and explanations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.monitoring.progress import AgentProgress, RunProgress, read_progress
from app.monitoring.run_facts import (
    Attempt,
    BudgetState,
    Call,
    HistoryEvent,
    Located,
    Standing,
    ToolUse,
    Wait,
)
from app.monitoring.whole_run import (
    Incomplete,
    Place,
    RunTree,
    is_inside,
    owner_of,
    read_incomplete,
    read_tree,
)

# All statements read the facts of several runs: of a run, and of the runs inside it.
READ_NOW: TextClause = text("SELECT clock_timestamp() AS now")
READ_DEPENDENCIES: TextClause = text("""
    SELECT run_id, name, dependencies FROM agent_runs
    WHERE run_id = ANY(CAST(:run_ids AS uuid[])) AND parent_id IS NULL
""")
READ_ATTEMPTS: TextClause = text("""
    SELECT o.run_id, o.name, o.provider, o.id AS agent_run_id, o.item_count IS NOT NULL AS is_list,
        t.number, t.worker, t.outcome, t.error, t.error_class, t.started_at, t.finished_at,
        t.finish_reason
    FROM agent_runs o JOIN attempts t ON t.agent_run_id = o.id
    WHERE o.run_id = ANY(CAST(:run_ids AS uuid[])) ORDER BY t.started_at, t.number
""")
# A corrected estimate and its correcting entry add up to zero, so the two entries are left out. A
# call that a program booked may name an agent that the run does not have.
READ_CALLS: TextClause = text("""
    SELECT c.run_id, coalesce(o.name, c.agent) AS name, c.provider, c.model, c.module, c.kind,
        c.outcome, c.cost_usd, c.created_at AS ended_at, c.seconds,
        c.input_tokens + c.cached_tokens + c.cache_write_tokens + c.cache_write_1h_tokens
            AS prompt_tokens, c.output_tokens, c.finish_reason
    FROM cost_entries c LEFT JOIN agent_runs o ON o.id = c.agent_run_id
    WHERE c.run_id = ANY(CAST(:run_ids AS uuid[])) AND c.corrects IS NULL AND NOT EXISTS (
        SELECT FROM cost_entries back
        WHERE back.call_id = c.call_id AND back.corrects = c.kind AND back.kind = 'correction'
    ) ORDER BY c.id
""")
READ_TOOLS: TextClause = text("""
    SELECT o.run_id, o.name, t.state, t.started_at, t.finished_at
    FROM agent_runs o JOIN tool_calls t ON t.agent_run_id = o.id
    WHERE o.run_id = ANY(CAST(:run_ids AS uuid[])) ORDER BY t.started_at
""")
READ_EVENTS: TextClause = text("""
    SELECT e.run_id, e.type, e.at, e.data, o.name
    FROM events e LEFT JOIN agent_runs o ON o.id = e.agent_run_id
    WHERE e.run_id = ANY(CAST(:run_ids AS uuid[])) AND e.type = ANY(CAST(:types AS text[]))
    ORDER BY e.id
""")
# The waits that each attempt recorded, and the periods in which agents were handed back. The period
# of a handed-back agent ends when the agent is ready again, so the period includes no wait for a
# worker.
READ_WAITS: TextClause = text("""
    SELECT o.run_id, o.name, w.waits_for, sum(w.seconds) AS seconds, max(w.seconds) AS longest_s,
        count(*) AS count
    FROM (
        SELECT e.agent_run_id, waits.key AS waits_for, waits.value::float8 AS seconds
        FROM events e CROSS JOIN LATERAL jsonb_each_text(e.data -> 'waited') waits
        WHERE e.run_id = ANY(CAST(:run_ids AS uuid[]))
        UNION ALL
        SELECT e.agent_run_id, e.data ->> 'waits_for', extract(epoch FROM least(t.started_at - e.at,
            make_interval(secs => (e.data ->> 'ready_in_s')::float8)))::float8
        FROM events e
        JOIN attempts t ON t.agent_run_id = e.agent_run_id AND t.number = e.attempt + 1
        WHERE e.run_id = ANY(CAST(:run_ids AS uuid[])) AND e.type = 'agent_waiting'
    ) w JOIN agent_runs o ON o.id = w.agent_run_id
    GROUP BY o.level, o.position, o.item_index, o.run_id, o.name, w.waits_for
    ORDER BY o.level, o.position, o.item_index, w.waits_for
""")
#: The events that attempts, tool calls and states do not show as well.
TOLD_EVENTS = (
    *("agent_waiting", "agent_fallback"),
    *("run_paused", "run_resumed", "run_stopped", "run_cancelled"),
)
READ_NOW_OF_AGENTS: TextClause = text("""
    SELECT o.run_id, o.name, o.status, o.ready_at, o.waits_for, o.retries,
        o.item_index IS NOT NULL AS is_element, o.item_count,
        q.since AS money_since, q.amount_usd AS money_usd,
        coalesce(q.budget_ids, '{}') AS budgets, h.created_at AS calling_since,
        h.provider || '/' || h.model AS called,
        t.tool, o.provider, o.model, o.level, o.worker
    FROM agent_runs o
    LEFT JOIN hold_queue q ON q.agent_run_id = o.id AND q.attempt = o.attempt
    LEFT JOIN LATERAL (
        SELECT * FROM holds WHERE agent_run_id = o.id AND attempt = o.attempt
        ORDER BY created_at DESC LIMIT 1
    ) h ON true
    LEFT JOIN LATERAL (
        SELECT tool FROM tool_calls WHERE agent_run_id = o.id AND state = 'running'
        ORDER BY started_at DESC LIMIT 1
    ) t ON true
    WHERE o.run_id = ANY(CAST(:run_ids AS uuid[]))
        AND o.status IN ('pending', 'running', 'waiting')
    ORDER BY o.level, o.position, o.item_index
""")
READ_BUDGETS: TextClause = text("""
    SELECT id, scope, subject, period, limit_usd, spent_usd, held_usd FROM budgets
    WHERE id = ANY(CAST(:ids AS uuid[]))
""")
# The costs of the same agents in earlier runs of any version of the workflow. The cost of an inner
# run counts for the agent of the earlier run that contains this inner run.
READ_USUAL: TextClause = text("""
    SELECT agent, percentile_cont(0.5) WITHIN GROUP (ORDER BY cost_usd)::numeric AS cost_usd,
        count(*) AS runs
    FROM (
        SELECT earlier.id, split_part(c.agent, '[', 1) AS agent, sum(c.cost_usd) AS cost_usd
        FROM (
            SELECT r.id FROM workflows w JOIN runs r ON r.workflow_id = w.id
            WHERE w.name = :workflow AND r.id < :run_id AND r.status = 'completed'
            ORDER BY r.id DESC LIMIT 20
        ) earlier CROSS JOIN LATERAL (
            SELECT own.agent, own.cost_usd FROM cost_entries own WHERE own.run_id = earlier.id
            UNION ALL
            SELECT p.name, e.cost_usd FROM runs r
            JOIN runs child ON child.id = coalesce(
                r.ancestors[array_position(r.ancestors, earlier.id) + 1], r.id)
            JOIN agent_runs p ON p.id = child.parent_agent_run_id
            JOIN cost_entries e ON e.run_id = r.id
            WHERE r.ancestors <> '{}' AND r.ancestors @> ARRAY[earlier.id]
        ) c
        GROUP BY earlier.id, split_part(c.agent, '[', 1)
    ) costs GROUP BY agent
""")


_LocatedFact = TypeVar("_LocatedFact", bound=Located)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """A whole run with all its facts except inputs and outputs.

    Attributes:
        now: The database's clock at the time of reading.
        run: The run and its agents.
        places: The runs inside the run, by id, and the run itself.
        dependencies: Dependencies by the path of an agent; the dependencies are agents of the same
            run.
        incomplete: Agent runs without a whole result, in the order of the run.
        attempts: Attempts by time.
        calls: Entries of the ledger, in order.
        tools: Calls of tools, by time.
        events: Events that attempts and tool calls do not show, in order.
        waits: Waits that are over, by agent run.
        standing: The agent runs that have not ended.
        usual_usd: Median cost of each agent in earlier runs of this workflow, if there are at least
            three earlier runs.
    """

    now: datetime
    run: RunProgress
    places: Mapping[UUID, Place] = field(default_factory=dict)
    dependencies: Mapping[str, tuple[str, ...]]
    incomplete: tuple[Incomplete, ...] = ()
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

    def focused(self, agent: AgentProgress) -> "RunHistory":
        """Return the history of only one agent run: of an agent, or of an element of a list.

        The facts of this agent run, and of everything inside it, get the name of the agent run.

        Args:
            agent: The agent run.
        """

        def inside(facts: Sequence[_LocatedFact]) -> tuple[_LocatedFact, ...]:
            return tuple(
                replace(fact, agent=agent.name)
                for fact in facts
                if is_inside(fact.name, agent.name)
            )

        return replace(
            self,
            run=replace(self.run, agents=(agent,)),
            incomplete=tuple(e for e in self.incomplete if is_inside(e.path, agent.name)),
            attempts=inside(self.attempts),
            calls=inside(self.calls),
            tools=inside(self.tools),
            events=tuple(
                replace(event, agent=agent.name) if event.name else event
                for event in self.events
                if event.name is None or is_inside(event.name, agent.name)
            ),
            waits=inside(self.waits),
            standing=inside(self.standing),
        )


#: With fewer earlier runs than this, an agent has no usual cost.
ENOUGH_RUNS = 3


async def read_history(connection: AsyncConnection, run_id: UUID) -> RunHistory:
    """Read all facts of a run and of the runs inside it.

    Args:
        connection: A connection inside a transaction.
        run_id: The run.

    Raises:
        UnknownRun: If there is no such run.
    """
    tree = await read_tree(connection, run_id)
    present = await _present(connection, run_id, tree)
    usual = await connection.execute(
        READ_USUAL, {"run_id": run_id, "workflow": present.run.workflow}
    )
    return replace(
        present,
        incomplete=await read_incomplete(connection, tree),
        attempts=await _attempts(connection, tree),
        calls=await _facts(connection, Call, READ_CALLS, tree),
        tools=await _facts(connection, ToolUse, READ_TOOLS, tree),
        events=await _events(connection, run_id, tree),
        waits=await _facts(connection, Wait, READ_WAITS, tree),
        usual_usd={row.agent: row.cost_usd for row in usual if row.runs >= ENOUGH_RUNS},
    )


async def read_present(connection: AsyncConnection, run_id: UUID) -> RunHistory:
    """Read a run without its past; this reading is cheap enough to be done every second.

    Raises:
        UnknownRun: If there is no such run.
    """
    return await _present(connection, run_id, await read_tree(connection, run_id))


async def _present(connection: AsyncConnection, run_id: UUID, tree: RunTree) -> RunHistory:
    needed = await connection.execute(READ_DEPENDENCIES, {"run_ids": tree.run_ids})
    return RunHistory(
        run=await read_progress(connection, run_id),
        # All times of a run are measured by the database's clock.
        now=await connection.scalar(READ_NOW),
        places=tree.places,
        dependencies={tree.path(row.run_id, row.name): tuple(row.dependencies) for row in needed},
        standing=await _standing(connection, tree),
    )


async def _standing(connection: AsyncConnection, tree: RunTree) -> tuple[Standing, ...]:
    """Read the state of the agent runs that have not ended."""
    rows = await connection.execute(READ_NOW_OF_AGENTS, {"run_ids": tree.run_ids})
    found = [(_located(row, tree), row.run_id, row.budgets) for row in rows]
    ids = sorted({id_ for _, _, budget_ids in found for id_ in budget_ids})
    states = await connection.execute(READ_BUDGETS, {"ids": ids}) if ids else None
    budgets = {row["id"]: BudgetState(**row) for row in states.mappings()} if states else {}
    return tuple(
        Standing(
            **facts
            | {
                "run_id": run_id,
                "budgets": tuple(budgets[id_] for id_ in budget_ids if id_ in budgets),
            }
        )
        for facts, run_id, budget_ids in found
    )


async def _attempts(connection: AsyncConnection, tree: RunTree) -> tuple[Attempt, ...]:
    found = []
    for row in await connection.execute(READ_ATTEMPTS, {"run_ids": tree.run_ids}):
        facts = _located(row, tree)
        is_list, id_ = facts.pop("is_list"), facts.pop("agent_run_id")
        found.append(Attempt(**facts, is_container=is_list or id_ in tree.containers))
    return tuple(found)


async def _events(
    connection: AsyncConnection, run_id: UUID, tree: RunTree
) -> tuple[HistoryEvent, ...]:
    """Read the events of all agents; of the events of runs, read only those of the outer run."""
    rows = await connection.execute(
        READ_EVENTS, {"run_ids": tree.run_ids, "types": list(TOLD_EVENTS)}
    )
    found = []
    for row in rows:
        told = {"type": row.type, "at": row.at, "data": row.data}
        if row.name is not None:
            path = tree.path(row.run_id, row.name)
            found.append(HistoryEvent(**told, agent=owner_of(path), path=path))
        elif row.run_id == run_id:
            found.append(HistoryEvent(**told))
    return tuple(found)


async def _facts(
    connection: AsyncConnection, kind: type[_LocatedFact], statement: TextClause, tree: RunTree
) -> tuple[_LocatedFact, ...]:
    rows = await connection.execute(statement, {"run_ids": tree.run_ids})
    return tuple(kind(**_located(row, tree)) for row in rows)


def _located(row: Row[Any], tree: RunTree) -> dict[str, Any]:
    """Return the columns of a row; the run and the name of the agent run become its path."""
    facts: dict[str, Any] = row._asdict()
    path = tree.path(facts.pop("run_id"), facts.pop("name"))
    return facts | {"agent": owner_of(path), "path": path}

"""Made-up runs in the form in which the monitoring reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.domain.status import AgentStatus, WorkflowStatus
from app.monitoring.progress import AgentProgress, RunProgress
from app.monitoring.run_facts import Attempt, Call, HistoryEvent, Standing
from app.monitoring.run_history import RunHistory
from app.monitoring.whole_run import Incomplete

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN_ID = UUID(int=1)


def at(seconds: float) -> datetime:
    """Return the time of a second of the run."""
    return START + timedelta(seconds=seconds)


def agent(name: str, level: int = 0, **fields: Any) -> AgentProgress:
    """Return an agent that, by default, ran from second 0 to second 1 and completed."""
    given: dict[str, Any] = {
        "name": name,
        "module": "HR",
        "provider": "openai",
        "model": "gpt-4o",
        "level": level,
        "status": AgentStatus.COMPLETED,
        "attempt": 1,
        "retries": 0,
        "recoveries": 0,
        "error": None,
        "spent_usd": Decimal("0.001"),
        "started_at": at(0),
        "finished_at": at(1),
    } | fields
    if not AgentStatus(given["status"]).is_final:
        given |= {"finished_at": None}
    return AgentProgress(**given | {"status": AgentStatus(given["status"])})


def attempt(name: str, start: float, end: float | None, **fields: Any) -> Attempt:
    """Return an attempt between these seconds."""
    given: dict[str, Any] = {"number": 1, "worker": "w1", "outcome": "completed"} | fields
    ended = None if end is None else at(end)
    return Attempt(agent=name, started_at=at(start), finished_at=ended, **given)


def call(name: str, start: float, end: float, **fields: Any) -> Call:
    """Return a call that lasted from ``start`` to ``end``, and that cost a tenth of a cent."""
    given: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt-4o",
        "module": "HR",
        "kind": "actual",
        "outcome": "ok",
        "cost_usd": Decimal("0.001"),
        "prompt_tokens": 100,
        "output_tokens": 20,
    } | fields
    return Call(agent=name, ended_at=at(end), seconds=end - start, **given)


def incomplete(
    path: str,
    outcome: str,
    error: str | None = None,
    error_class: str | None = None,
    retries: int = 0,
    **fields: Any,
) -> Incomplete:
    """Return an agent run that ended without its whole result."""
    return Incomplete(
        path=path,
        outcome=outcome,
        error=error,
        error_class=error_class,
        retries=retries,
        **{"run_id": RUN_ID, **fields},
    )


def event(type_: str, seconds: float, **fields: Any) -> HistoryEvent:
    """Return an event at this second."""
    given: dict[str, Any] = {"data": {}} | fields
    return HistoryEvent(type=type_, at=at(seconds), **given)


def standing(name: str, **fields: Any) -> Standing:
    """Return an agent that is ready to be claimed."""
    given: dict[str, Any] = {
        "status": "pending",
        "level": 0,
        "provider": "openai",
        "model": "gpt-4o",
        "ready_at": at(0),
    } | fields
    return Standing(agent=name, **given)


def history(
    *agents: AgentProgress,
    dependencies: Mapping[str, Sequence[str]] | None = None,
    now: float = 100.0,
    run: Mapping[str, Any] | None = None,
    **facts: Any,
) -> RunHistory:
    """Return a run of these agents; if all agents have ended, the run has ended."""
    ends = [one.finished_at for one in agents if one.finished_at is not None]
    ended = len(ends) == len(agents)
    given: dict[str, Any] = {
        "id": RUN_ID,
        "workflow": "hiring",
        "version": 1,
        "status": WorkflowStatus.COMPLETED if ended else WorkflowStatus.RUNNING,
        "error": None,
        "level": 0,
        "level_count": 1 + max((one.level for one in agents), default=0),
        "limit_usd": Decimal(1),
        "spent_usd": Decimal("0.01"),
        "created_at": START,
        "started_at": START,
        "finished_at": max(ends) if ended and ends else None,
        "agents": agents,
    } | dict(run or {})
    needed = {one.name: tuple((dependencies or {}).get(one.name, ())) for one in agents}
    classes = {one.name: one.error_class for one in facts.get("attempts", ()) if one.error_class}
    facts.setdefault(
        "incomplete",
        tuple(
            incomplete(one.name, str(one.status), one.error, classes.get(one.name), one.retries)
            for one in agents
            if one.status.is_final and one.status != "completed"
        ),
    )
    made = RunHistory(
        now=at(now),
        run=RunProgress(**given | {"status": WorkflowStatus(given["status"])}),
        dependencies=needed,
    )
    return replace(made, **facts)

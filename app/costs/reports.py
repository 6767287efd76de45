"""Reports from the ledger's views: the costs by subject, and the wasted part of the costs."""

# ruff: noqa: S608 - these statements consist of constants; values and names are parameters

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.costs.dimensions import DIMENSIONS, LABEL, RUN_INSIDE, Dimension
from app.domain.run_filter import EVERY_RUN, RunFilter
from app.storage.run_tree import run_tree_ids
from app.storage.session import dumps

_MEASURES = """l.calls, l.prompt_tokens, l.cached_tokens, l.output_tokens, l.cost_usd,
        l.wasted_usd, l.unconfirmed_usd, l.saved_usd"""
_SUMS = """
    coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(prompt_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    coalesce(sum(wasted_usd), 0) AS wasted_usd,
    coalesce(sum(unconfirmed_usd), 0) AS unconfirmed_usd,
    coalesce(sum(saved_usd), 0) AS saved_usd"""
#: The conditions of a report by the names of their parameters. A statement has only the conditions
#: that are asked for, so that an index can support them.
_CONDITIONS = {
    "run_ids": "l.run_id = ANY(CAST(:run_ids AS uuid[]))",
    "tenant": "l.tenant = :tenant",
    "workflow": "l.workflow = :workflow",
    "outer_workflow": "l.outer_workflow = :outer_workflow",
    "labels": "labels @> CAST(:labels AS jsonb)",
    "label_keys": "labels ?& CAST(:label_keys AS text[])",
}
_OF_RUNS = ("labels", "label_keys")
_NOT_IN_DAYS = {"run_ids", "outer_workflow", *_OF_RUNS}


@dataclass(frozen=True, kw_only=True, slots=True)
class CostLine:
    """One line of a report.

    Attributes:
        keys: Names of the line's subject, one for each dimension of the report, such as a tenant
            and a model.
        calls: Calls that reached a provider, including failed calls.
        input_tokens: Tokens of all prompts, including cached tokens.
        cached_tokens: The part of ``input_tokens`` that was read from a provider's cache.
        output_tokens: Generated tokens.
        cost_usd: Cost in dollars.
        wasted_usd: The part of the cost that was spent on calls without a result.
        unconfirmed_usd: The part of the cost that is not certain, because it consists of the worst
            cases of lost calls.
        saved_usd: Dollars that caches saved; the saved dollars are not part of the cost.
    """

    keys: tuple[str, ...]
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: Decimal
    wasted_usd: Decimal
    unconfirmed_usd: Decimal
    saved_usd: Decimal

    @property
    def key(self) -> str:
        """The names of the line's subject as one text."""
        return ", ".join(self.keys)


#: The total of a report without any call.
NO_COSTS = CostLine(
    keys=(),
    calls=0,
    input_tokens=0,
    cached_tokens=0,
    output_tokens=0,
    cost_usd=Decimal(0),
    wasted_usd=Decimal(0),
    unconfirmed_usd=Decimal(0),
    saved_usd=Decimal(0),
)


@dataclass(frozen=True, kw_only=True)
class ReportFilter:
    """The calls that a report of costs counts; a call is counted if it fulfils all conditions.

    Example:
        ReportFilter(runs=RunFilter(labels={"team": "claims"}), outer_workflow="mails")

    Attributes:
        run_id: The only run, together with the runs of its sub-workflows; None means all runs.
        since: Time before which no entry is counted; None means that all entries are counted.
        runs: Tenant, workflow and labels of the calls' runs. The workflow is the name under which a
            call is booked, so calls of sub-workflows are not counted under the outer workflow.
            Inner runs have the tenant and the labels of their outer runs.
        outer_workflow: Name of the outermost workflow of the calls.
    """

    run_id: UUID | None = None
    since: datetime | None = None
    runs: RunFilter = field(default=EVERY_RUN)
    outer_workflow: str | None = None


EVERY_CALL = ReportFilter()


async def costs_by(
    connection: AsyncConnection, by: Sequence[str], only: ReportFilter = EVERY_CALL
) -> list[CostLine]:
    """Read the costs by one or several dimensions, the highest cost first.

    Args:
        connection: Connection inside a transaction.
        by: Names of dimensions, see ``read_dimensions``. With ``run``, a line has the cost of a run
            and of all runs inside it; if the report is about only one run, each run inside has a
            line of its own. With ``label:KEY``, the costs of runs without the label have the key
            ``-``.
        only: The calls that are counted.
    """
    statement, values = report(by, only)
    rows = await connection.execute(statement, values | await _run_ids(connection, only))
    names = list(rows.keys())
    return [CostLine(**dict(zip(names, (tuple(keys), *sums), strict=True))) for keys, *sums in rows]


async def total_costs(connection: AsyncConnection, only: ReportFilter = EVERY_CALL) -> CostLine:
    """Read the sum of all lines that ``costs_by`` returns for the same calls."""
    (total,) = await costs_by(connection, (), only)
    return total


async def _run_ids(connection: AsyncConnection, only: ReportFilter) -> dict[str, Any]:
    run_id = only.run_id
    return {} if run_id is None else {"run_ids": await run_tree_ids(connection, run_id)}


def report(
    by: Sequence[str], only: ReportFilter = EVERY_CALL, *, totals: bool = True
) -> tuple[TextClause, dict[str, Any]]:
    """Return the statement of a report, and its parameters except ``run_ids``.

    Args:
        by: Names of dimensions; without any, the report has one line with the sum.
        only: The calls that are counted.
        totals: Whether the daily totals may be read, if they have all the columns.
    """
    dimensions, labels = _dimensions(by, only)
    values = _filter_values(only)
    names = [*values, *(["run_ids"] if only.run_id is not None else [])]
    whole = "outer_workflow" in names or any(each.whole for each in dimensions)
    has_days = totals and not whole and _has_days(dimensions, names, only.since)
    columns = list(dict.fromkeys(name for each in dimensions for name in each.columns))
    shown = ", ".join([*(_shown(name, labels) for name in columns), _MEASURES])
    where = " AND ".join(_conditions(names)) or "true"
    lines = "cost_lines_whole l" if whole else "cost_lines l"
    if labels:
        lines += " LEFT JOIN runs labelled ON labelled.id = l.run_id"
    source = _from_days(shown, where, only.since) if has_days else _lines(shown, where, only.since)
    # The lines are grouped by columns. Only groups get names, because names for all lines would
    # take twice as long.
    grouping = f" GROUP BY {', '.join(columns)} ORDER BY cost_usd DESC, keys" if columns else ""
    statement = f"""
    SELECT CAST(ARRAY[{", ".join(each.key for each in dimensions)}] AS text[]) AS keys, {_SUMS}
    FROM ({source.replace("LINES", lines)}) lines{grouping}"""
    return text(statement), values | labels | _times(only.since)


def _shown(column: str, labels: Mapping[str, str]) -> str:
    return f"labelled.labels ->> :{column} AS {column}" if column in labels else f"l.{column}"


def _has_days(
    dimensions: Sequence[Dimension], conditions: Sequence[str], since: datetime | None
) -> bool:
    """Return whether the daily totals have the columns of a report, and it contains whole days.

    Otherwise the report reads only the single lines; Postgres can read these on several cores.
    """
    if not all(each.in_days for each in dimensions) or {*conditions} & _NOT_IN_DAYS:
        return False
    return since is None or _next_midnight(since) <= datetime.now(UTC)


def _dimensions(by: Sequence[str], only: ReportFilter) -> tuple[list[Dimension], dict[str, str]]:
    """Return dimensions, and the keys of labels by the names of their parameters and columns."""
    found: list[Dimension] = []
    labels: dict[str, str] = {}
    for name in by:
        if name.startswith(LABEL):
            column = f"label_{len(labels)}"
            labels[column] = name.removeprefix(LABEL)
            key = f"coalesce({column}, '-')"
            found.append(Dimension(columns=(column,), key=key, in_days=False))
        elif name == "run" and only.run_id is not None:
            found.append(RUN_INSIDE)
        else:
            found.append(DIMENSIONS[name])
    return found, labels


def _filter_values(only: ReportFilter) -> dict[str, Any]:
    given = {
        "tenant": only.runs.tenant,
        "workflow": only.runs.workflow,
        "outer_workflow": only.outer_workflow,
        "labels": dumps(only.runs.exact_labels) if only.runs.exact_labels else None,
        "label_keys": only.runs.label_keys or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _conditions(names: Sequence[str]) -> list[str]:
    found = [_CONDITIONS[name] for name in names if name not in _OF_RUNS]
    if of_runs := [_CONDITIONS[name] for name in names if name in _OF_RUNS]:
        # The ids are read once; then an index finds the lines of each run.
        runs = f"SELECT id FROM runs WHERE labels <> '{{}}' AND {' AND '.join(of_runs)}"
        found.append(f"l.run_id = ANY(ARRAY({runs}))")
    return found


def _lines(shown: str, where: str, since: datetime | None) -> str:
    started = "" if since is None else " AND l.created_at >= CAST(:since AS timestamptz)"
    return f"SELECT {shown} FROM LINES WHERE {where}{started}"


def _from_days(shown: str, where: str, since: datetime | None) -> str:
    """Read whole days from the daily totals, and the part of the first day from single lines."""
    if since is None:
        return f"SELECT {shown} FROM costs_daily l WHERE {where}"
    return f"""
        SELECT {shown} FROM costs_daily l
        WHERE {where} AND l.day >= CAST(:first_day AS date)
        UNION ALL
        SELECT {shown} FROM LINES WHERE {where}
            AND l.created_at >= CAST(:since AS timestamptz)
            AND l.created_at < CAST(:until AS timestamptz)"""


def _times(since: datetime | None) -> dict[str, Any]:
    if since is None:
        return {}
    until = _next_midnight(since)
    return {"since": since, "until": until, "first_day": until.date()}


def _next_midnight(at: datetime) -> datetime:
    """Return the first midnight (UTC) that is not before a time."""
    at = at.astimezone(UTC)
    midnight = datetime.combine(at.date(), time(), UTC)
    return midnight if midnight == at else midnight + timedelta(days=1)

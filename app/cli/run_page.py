"""The page that `agentchord status` prints for one run."""

from collections.abc import Sequence
from datetime import datetime

from app.cli.output import STYLES, console, dollars, moment, reason, seconds, styled, table
from app.domain.plain_text import shown_line
from app.monitoring.progress import AgentProgress
from app.monitoring.whole_run import Incomplete, WholeRun, grouped_incomplete

ERROR_WIDTH = 120


def show_run(whole: WholeRun) -> None:
    """Print a run and its agents, and name everything inside that has no whole result."""
    printer, run = console(), whole.run
    facts = [
        ("run", str(run.id)),
        ("workflow", f"{run.workflow} v{run.version}"),
        ("status", str(run.status)),
        ("error", run.error or ""),
        ("level", f"{min(run.level + 1, run.level_count)} of {run.level_count}"),
        ("created", f"{moment(run.created_at)} UTC"),
        ("took", seconds(run.started_at, run.finished_at)),
        ("key", run.key or ""),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(run.labels.items()))),
        ("rerun of", f"{run.rerun_of} from {run.rerun_from}" if run.rerun_of else ""),
        ("part of", str(run.part_of or "")),
        ("pruned", _pruned(run.pruned_at)),
        ("cost", f"{dollars(run.spent_usd)} of {dollars(run.limit_usd)}"),
    ]
    for name, value in facts:
        if value:
            printer.print(f"{name:<9} {value}")
    streamed = any(agent.first_token_s is not None for agent in run.agents)
    rows = [
        (
            agent.level + 1,
            agent.label,
            agent.module,
            agent.model,
            "partial" if agent.is_partial else agent.status,
            agent.attempt,
            seconds(agent.started_at, agent.finished_at),
            *([_first_token(agent)] if streamed else []),
            dollars(agent.spent_usd),
            _waiting(agent) or reason(agent.error, ERROR_WIDTH),
        )
        for agent in run.agents
    ]
    columns = (
        *("level>", "agent", "module", "model", "status"),
        *("attempts>", "took>", *(["first token>"] if streamed else []), "cost>", "error"),
    )
    printer.print()
    printer.print(table(columns, rows))
    for agent in run.agents:
        if agent.sub_run_id is not None:
            printer.print(f"{agent.name} is run {agent.sub_run_id}")

    show_incomplete(whole.incomplete)


def show_incomplete(incomplete: Sequence[Incomplete]) -> None:
    """Print a line for each kind of agent runs without a whole result, with all their names."""
    printer = console()
    for number, group in enumerate(grouped_incomplete(incomplete)):
        if not number:
            printer.print("\nwithout a whole result:")
        cause = reason(group.cause, ERROR_WIDTH)
        text = f"{group.names} {group.outcome.replace('_', ' ')}" + (f": {cause}" if cause else "")
        printer.print(styled(f"  {shown_line(text)}", style=STYLES.get(group.outcome, "")))


def _waiting(agent: AgentProgress) -> str:
    until = moment(agent.waits_until)
    return f"waiting for {agent.waits_for} until {until} UTC" if until else ""


def _first_token(agent: AgentProgress) -> str:
    return "" if agent.first_token_s is None else f"{agent.first_token_s:.2f} s"


def _pruned(pruned_at: datetime | None) -> str:
    at = moment(pruned_at)
    return f"{at} UTC: input, outputs and history were removed, the ledger was kept" if at else ""

"""The page that `agentchord status` prints for one run."""

from app.cli.output import console, dollars, moment, reason, seconds, table
from app.monitoring.progress import AgentProgress, RunProgress

ERROR_WIDTH = 120


def show_run(run: RunProgress) -> None:
    """Print a run and its agents."""
    printer = console()
    facts = [
        ("run", str(run.id)),
        ("workflow", f"{run.workflow} v{run.version}"),
        ("status", str(run.status)),
        ("error", run.error or ""),
        ("level", f"{min(run.level + 1, run.level_count)} of {run.level_count}"),
        ("created", f"{moment(run.created_at)} UTC"),
        ("took", seconds(run.started_at, run.finished_at)),
        ("key", run.key or ""),
        ("rerun of", f"{run.rerun_of} from {run.rerun_from}" if run.rerun_of else ""),
        ("part of", str(run.part_of or "")),
        ("pruned", _pruned(run)),
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
            agent.status,
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


def _waiting(agent: AgentProgress) -> str:
    until = moment(agent.waits_until)
    return f"waiting for {agent.waits_for} until {until} UTC" if until else ""


def _first_token(agent: AgentProgress) -> str:
    return "" if agent.first_token_s is None else f"{agent.first_token_s:.2f} s"


def _pruned(run: RunProgress) -> str:
    at = moment(run.pruned_at)
    return f"{at} UTC: input, outputs and history were removed, the ledger was kept" if at else ""

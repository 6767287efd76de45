"""The page that `agentchord status` prints for one run."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType

from app.cli.agent_columns import shown_state
from app.cli.output import console, moment, seconds
from app.cli.styles import STYLES
from app.cli.tables import Table, note, number, state, table, words
from app.cli.wrapping import Facts, facts, item
from app.domain.money import aligned_dollars, dollars
from app.monitoring.progress import AgentProgress, RunProgress
from app.monitoring.whole_run import Incomplete, WholeRun, grouped_incomplete

#: Most characters of an error on a terminal.
ERROR_WIDTH = 300
COLUMNS = (
    number("level", drop=2),
    words("agent", 11),
    words("module", 8, drop=3),
    words("model", 10, drop=4),
    state(),
    number("attempts", drop=5),
    number("took", drop=1),
    number("first token", drop=6),
    number("cost"),
    note("error", most=ERROR_WIDTH),
)


def show_run(whole: WholeRun, *, wide: bool = False) -> None:
    """Print a run and its agents, and name everything inside that has no whole result."""
    console(wide=wide).print(run_page(whole))


def run_page(whole: WholeRun) -> Group:
    """Return the page of a run: the facts of the run, a table of its agents, and what is lost."""
    run = whole.run
    inner = [
        ("", f"{agent.name} is run {agent.sub_run_id}")
        for agent in run.agents
        if agent.sub_run_id is not None
    ]
    parts: list[RenderableType] = [_head(run), "", agents_table(run.agents)]
    parts += [facts(inner)] if inner else []
    return Group(*parts, *incomplete_lines(whole.incomplete))


def agents_table(agents: Sequence[AgentProgress]) -> Table:
    """Return the agents of a run as a table."""
    rows = [
        (
            agent.level + 1,
            agent.label,
            agent.module,
            agent.model,
            shown_state(agent),
            agent.attempt,
            seconds(agent.started_at, agent.finished_at),
            _first_token(agent),
            aligned_dollars(agent.spent_usd),
            _waiting(agent) or agent.error or "",
        )
        for agent in agents
    ]
    streamed = any(agent.first_token_s is not None for agent in agents)
    return table(COLUMNS, rows) if streamed else table(COLUMNS, rows).without("first token")


def show_incomplete(incomplete: Sequence[Incomplete]) -> None:
    """Print a line for each kind of agent runs without a whole result, with all their names."""
    console().print(Group(*incomplete_lines(incomplete)), end="")


def incomplete_lines(incomplete: Sequence[Incomplete]) -> list[RenderableType]:
    """Return a line for each kind of agent runs without a whole result, with all their names."""
    lines: list[RenderableType] = []
    for number_, group in enumerate(grouped_incomplete(incomplete)):
        if not number_:
            lines += ["", "without a whole result:"]
        text = f"{group.names} {group.outcome.replace('_', ' ')}"
        text += f": {group.cause}" if group.cause else ""
        lines.append(item(text, most=ERROR_WIDTH, style=STYLES.get(group.outcome, "")))
    return lines


def _head(run: RunProgress) -> Facts:
    return facts(
        [
            ("run", run.id),
            ("workflow", f"{run.workflow} v{run.version}"),
            ("status", run.status),
            ("error", run.error or ""),
            ("level", f"{min(run.level + 1, run.level_count)} of {run.level_count}"),
            ("created", f"{moment(run.created_at)} UTC"),
            ("took", seconds(run.started_at, run.finished_at)),
            ("key", run.key or ""),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(run.labels.items()))),
            ("rerun of", f"{run.rerun_of} from {run.rerun_from}" if run.rerun_of else ""),
            ("part of", run.part_of or ""),
            ("pruned", _pruned(run.pruned_at)),
            ("cost", f"{aligned_dollars(run.spent_usd)} of {dollars(run.limit_usd)}"),
        ]
    )


def _waiting(agent: AgentProgress) -> str:
    until = moment(agent.waits_until)
    return f"waiting for {agent.waits_for} until {until} UTC" if until else ""


def _first_token(agent: AgentProgress) -> str:
    return "" if agent.first_token_s is None else f"{agent.first_token_s:.2f} s"


def _pruned(pruned_at: datetime | None) -> str:
    at = moment(pruned_at)
    return f"{at} UTC: input, outputs and history were removed, the ledger was kept" if at else ""

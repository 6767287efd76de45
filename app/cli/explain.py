"""`agentchord explain`: the reasons why a run waits or failed, is slow or expensive."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from app.attachments.reader import AttachmentReader
from app.bootstrap import call_planner
from app.cli.cluster import ask, find, transaction
from app.cli.live_state import queues_of, read_live
from app.cli.output import console, print_json
from app.cli.parameters import AsJson, RunId
from app.cli.styles import AMBER, DIM, STYLES
from app.cli.wrapping import Item, item
from app.concurrency.user_code import run_in_thread
from app.configuration.settings import load_settings
from app.domain.counts import counted
from app.domain.for_each import agent_of
from app.domain.suggestions import did_you_mean
from app.errors import AgentChordError, WorkflowError
from app.monitoring.explain import Live, explain_waits
from app.monitoring.explain_answers import explain_answers
from app.monitoring.explain_cost import (
    explain_agent_money,
    explain_agent_time,
    explain_money,
    explain_time,
)
from app.monitoring.explain_outcomes import explain_outcomes
from app.monitoring.explain_unloaded import explain_unloaded
from app.monitoring.explain_waited import explain_waited
from app.monitoring.findings import Finding, condensed
from app.monitoring.progress import AgentProgress, read_element
from app.monitoring.run_history import RunHistory, read_history
from app.monitoring.timeline import element_timeline, timeline_of
from app.monitoring.whole_run import is_inside, read_tree
from app.planning.forecast import forecast

#: Maximum number of findings with the same reason in the text; --json prints all findings.
MOST_OF_A_REASON = 6
#: Number of tokens that a plan assumes for each answer; see `agentchord plan`.
PLANNED_OUTPUT_TOKENS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class _Subject:
    """The subject of an explanation: a run, or an agent run anywhere inside a run.

    Attributes:
        run_id: The run that the user named.
        status: State of that run.
        history: History of the run; for an agent of a sub-workflow, the history of the inner run.
        agent: The agent run; None for the whole run.
        prefix: Path of the inner run, such as ``handled[20]/``; empty for the run itself.
    """

    run_id: UUID
    status: str
    history: RunHistory
    agent: AgentProgress | None = None
    prefix: str = ""

    @property
    def path(self) -> str | None:
        """Path of the agent run, or None."""
        return None if self.agent is None else f"{self.prefix}{self.agent.name}"


def explain(
    run: RunId,
    agent: Annotated[
        str | None,
        typer.Argument(help="Explain only this agent, element (a[1]) or inner agent (a[1]/b)."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Explain why a run waits or failed, is slow or expensive."""
    run_id = find(run)
    subject = transaction(partial(_read, run_id=run_id, path=agent))
    queues = queues_of(subject.history.standing)
    live, unknown = read_live(queues) if queues else (Live(), list[str]())
    if subject.agent is None:
        findings = _of_run(subject.history, live)
    else:
        findings = _of_agent(subject, subject.agent, live)
    if json:
        facts = {"run_id": run_id, "status": subject.status, "agent": agent}
        print_json({**facts, "findings": [asdict(each) for each in findings], "unknown": unknown})
        return
    _show(subject, findings, unknown)


async def _read(connection: AsyncConnection, *, run_id: UUID, path: str | None) -> _Subject:
    tree = await read_tree(connection, run_id)
    place = (run_id, None) if path is None else tree.find(path)
    if place is None:
        history = await read_history(connection, run_id)
        raise _no_agent(path or "", history)
    inside_id, name = place
    history = await read_history(connection, inside_id)
    subject = _Subject(
        run_id=run_id,
        status=tree.places[run_id].status,
        history=history,
        prefix=tree.places[inside_id].prefix,
    )
    if name is None:
        return subject
    agent = history.agent(name) or await read_element(connection, inside_id, name)
    if agent is None:
        raise _no_agent(name, history)
    return replace(subject, agent=agent)


def _no_agent(name: str, history: RunHistory) -> WorkflowError:
    list_ = history.agent(agent_of(name))
    if list_ is not None and list_.item_count is not None:
        hint = f": the list {list_.name!r} has {counted(list_.item_count, 'element')}"
        hint += f", {list_.name}[0] and so on" if list_.item_count else ""
    else:
        hint = did_you_mean(name, [each.name for each in history.run.agents])
    return WorkflowError(f"run {history.run.id} has no agent {name!r}{hint}", field="agent")


def _of_run(history: RunHistory, live: Live) -> list[Finding]:
    return [
        *_unloaded(history),
        *explain_waits(history, live),
        *explain_outcomes(history),
        *explain_answers(history),
        *explain_time(history, timeline_of(history)),
        *explain_waited(history),
        *explain_money(history, _planned(history)),
    ]


def _of_agent(subject: _Subject, agent: AgentProgress, live: Live) -> list[Finding]:
    """Explain one agent run and everything inside this agent run."""
    history, own = subject.history, subject.history.focused(agent)
    whole = timeline_of(history).of(agent.name)
    planned = {name: usd for name, usd in _planned(history).items() if name == agent.name}
    found = [
        *_unloaded(history),
        *explain_waits(history, live),
        *explain_outcomes(own),
        *explain_answers(own),
        *explain_agent_time(own, whole or element_timeline(history, agent)),
        *explain_waited(own),
        *explain_agent_money(own, planned),
    ]
    paths = [tuple(name for name in each.agents if is_inside(name, agent.name)) for each in found]
    return [
        replace(each, agents=tuple(f"{subject.prefix}{name}" for name in names_))
        for each, names_ in zip(found, paths, strict=True)
        if names_
    ]


def _unloaded(history: RunHistory) -> list[Finding]:
    """Return a finding for each open agent that names code which no live worker loads."""
    run = history.run
    if run.status.is_final:
        return []
    open_ = {each.name for each in run.agents if not each.status.is_final}
    workflow = ask(lambda client: client.workflows.of_run(run.id))
    workers = ask(lambda client: client.workflows.live_workers())
    return list(explain_unloaded(workflow, workers, open_))


def _planned(history: RunHistory) -> dict[str, Decimal]:
    """Return the costs that `agentchord plan` expects for each agent; leave out unknown costs."""
    if history.run.pruned_at is not None or not history.calls:
        return {}
    settings = load_settings()
    try:
        found = forecast(
            ask(lambda client: client.workflows.of_run(history.run.id)),
            ask(lambda client: client.runs.read(history.run.id)).input or {},
            planner=call_planner(settings),
            output_tokens=PLANNED_OUTPUT_TOKENS,
            retry=settings.retry,
            providers=settings.all_providers(),
            read=AttachmentReader(settings.attachments, in_thread=run_in_thread).read_here,
        )
    except AgentChordError:  # a price or a provider is not configured here
        return {}
    planned: dict[str, Decimal] = {}
    for each in found.agents:
        name = each.name.partition("/")[0]
        # If the length of a list is unknown, the plan has one element, so the cost of the whole
        # list is unknown, too.
        if not each.per_element:
            planned[name] = planned.get(name, each.expected_usd * 0) + each.expected_usd
    return planned


def _show(subject: _Subject, findings: Sequence[Finding], unknown: Sequence[str]) -> None:
    printer, run, agent = console(), subject.history.run, subject.agent
    state = run.status if agent is None else agent.status
    told = "completed in part" if agent is not None and agent.is_partial else state
    whose = f"run {subject.run_id}" + (f" ({run.workflow})" if not subject.prefix else "")
    whose = whose if agent is None else f"agent {subject.path} of {whose}"
    printer.print(item(f"{whose} is {told}", "", style=STYLES.get(state, "")))
    for note in unknown:
        printer.print(item(note, "", style=AMBER))
    for line in finding_lines(findings):
        printer.print(line)
    if not findings:
        printer.print("nothing is remarkable")


def finding_lines(findings: Sequence[Finding]) -> Iterator[Item]:
    """Yield the findings as sentences, each with its remedy unless it was told before."""
    told = {""}
    for each in condensed(findings, MOST_OF_A_REASON):
        yield item(f"{each.subject} {each.predicate}", "- ")
        if each.remedy not in told:
            yield item(each.remedy, "  -> ", style=DIM)
            told.add(each.remedy)

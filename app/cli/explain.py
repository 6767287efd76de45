"""`agentchord explain`: the reasons why a run waits or failed, is slow or expensive."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from functools import partial
from typing import Annotated

import typer

from app.attachments.reader import AttachmentReader
from app.bootstrap import call_planner
from app.cli.cluster import ask, find, transaction
from app.cli.live_state import queues_of, read_live
from app.cli.output import STYLES, console, print_json, styled
from app.cli.parameters import AsJson, RunId
from app.concurrency.user_code import run_in_thread
from app.configuration.settings import load_settings
from app.domain.plain_text import shown_line
from app.domain.suggestions import did_you_mean
from app.errors import AgentChordError, WorkflowError
from app.monitoring.explain import Live, explain_waits
from app.monitoring.explain_answers import explain_answers
from app.monitoring.explain_cost import explain_agent_time, explain_money, explain_time
from app.monitoring.explain_outcomes import explain_outcomes
from app.monitoring.explain_unloaded import explain_unloaded
from app.monitoring.explain_waited import explain_waited
from app.monitoring.findings import Finding, condensed
from app.monitoring.run_history import RunHistory, read_history
from app.monitoring.timeline import Timeline, timeline_of
from app.monitoring.wording import names
from app.planning.forecast import forecast

#: Maximum number of findings with the same reason in the text; --json prints all findings.
MOST_OF_A_REASON = 6
#: Number of tokens that a plan assumes for each answer; see `agentchord plan`.
PLANNED_OUTPUT_TOKENS = 300


def explain(
    run: RunId,
    agent: Annotated[str | None, typer.Argument(help="Explain only this agent.")] = None,
    json: AsJson = False,
) -> None:
    """Explain why a run waits or failed, is slow or expensive."""
    run_id = find(run)
    history = transaction(partial(read_history, run_id=run_id))
    if agent is not None and history.agent(agent) is None:
        hint = did_you_mean(agent, [each.name for each in history.run.agents])
        raise WorkflowError(f"run {run_id} has no agent {agent!r}{hint}", field="agent")
    queues = queues_of(history.standing)
    live, unknown = read_live(queues) if queues else (Live(), list[str]())
    findings = _findings(history, timeline_of(history), live, agent)
    findings[:0] = [each for each in _unloaded(history) if agent in (None, *each.agents)]
    if json:
        facts = {"run_id": run_id, "status": history.run.status, "agent": agent}
        print_json({**facts, "findings": [asdict(each) for each in findings], "unknown": unknown})
        return
    _show(history, findings, unknown, agent)


def _findings(
    history: RunHistory, timeline: Timeline, live: Live, agent: str | None
) -> list[Finding]:
    found = [
        *explain_waits(history, live),
        *explain_outcomes(history),
        *explain_answers(history),
    ]
    if agent is None:
        found += explain_time(history, timeline)
    elif (own := timeline.of(agent)) is not None:
        found += explain_agent_time(history, own)
    found += explain_waited(history, agent)
    found += explain_money(history, _planned(history))
    if agent is None:
        return found
    return [replace(each, agents=(agent,)) for each in found if agent in each.agents]


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


def _show(
    history: RunHistory, findings: Sequence[Finding], unknown: Sequence[str], agent: str | None
) -> None:
    printer, run = console(), history.run
    shown = history.agent(agent) if agent is not None else None
    state = shown.status if shown is not None else run.status
    whose = f"agent {agent} of run {run.id}" if shown is not None else f"run {run.id}"
    printer.print(styled(f"{whose} ({run.workflow}) is {state}", style=STYLES.get(state, "")))
    for note in unknown:
        printer.print(styled(note, style="yellow"))
    printed = {""}
    for each in condensed(findings, MOST_OF_A_REASON):
        who = names(each.agents) if each.agents else "the run"
        printer.print(styled(shown_line(f"- {who} {each.predicate}")))
        if each.remedy not in printed:
            printer.print(styled(f"  -> {each.remedy}", style="dim"))
            printed.add(each.remedy)
    if not findings:
        printer.print("nothing is remarkable")

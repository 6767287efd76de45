"""Explains why a run was slow or expensive, with the shares of the run's time and money."""

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal

from app.domain.counts import counted
from app.monitoring.explain_waited import NOTABLE_S
from app.monitoring.findings import Finding, Reason
from app.monitoring.run_facts import Call
from app.monitoring.run_history import RunHistory
from app.monitoring.timeline import AgentTimeline, Phase, Timeline
from app.monitoring.wording import money, names, seconds_of

#: Shorter times would be shown as 0.0 s.
SHOWN_S = 0.05
#: A cost above this multiple of the usual or planned cost makes a finding.
MUCH = Decimal("1.5")
#: Smaller shares of the money make no finding.
NOTABLE_SHARE = Decimal("0.05")
MOST_EXPENSIVE = 3
WORDS = {
    Phase.QUEUED: "waiting to be claimed",
    Phase.HELD: "waiting for limits, money or circuits",
    Phase.LOST: "lost with a worker that died",
    Phase.AWAY: "between attempts",
    Phase.CALLING: "calling or working",
}


def explain_time(history: RunHistory, timeline: Timeline) -> tuple[Finding, ...]:
    """Explain the time of the critical path, and the time of agents that mostly waited."""
    path = [step.timeline for step in timeline.critical_path]
    if not path:
        return ()
    longest = sorted(path, key=lambda each: -_length(each))
    took = "took" if history.run.status.is_final else "has taken"
    found = [
        Finding(
            reason=Reason.SLOW,
            text=(
                f"{took} {seconds_of(timeline.seconds)}; on its critical path "
                f"({' > '.join(_shown([each.agent.name for each in path]))}): {_parts(path)}"
            ),
        ),
        Finding(
            reason=Reason.SLOW,
            agents=(longest[0].agent.name,),
            text=f"is the longest part of the critical path: {_parts(longest[:1])}",
            remedy=_remedy(longest[:1], history) if _is_patient(longest[0]) else "",
        ),
    ]
    paused_s = sum((end - start).total_seconds() for start, end in timeline.pauses)
    if paused_s > NOTABLE_S:
        text = f"was paused for {seconds_of(paused_s)} of that time"
        found.append(Finding(reason=Reason.SLOW, text=text))
    patient = [each for each in timeline.agents if _is_patient(each)]
    if patient not in ([], longest[:1]):
        found.append(
            Finding(
                reason=Reason.SLOW,
                agents=tuple(each.agent.name for each in patient),
                text=f"spent most of the time waiting: {_parts(patient)}",
                remedy=_remedy(patient, history),
            )
        )
    return tuple(found)


def _is_patient(each: AgentTimeline) -> bool:
    return each.waiting_s > max(NOTABLE_S, each.calling_s)


def explain_agent_time(history: RunHistory, timeline: AgentTimeline) -> tuple[Finding, ...]:
    """Explain the time of one agent."""
    if not timeline.spans:
        return ()
    verb = "took" if timeline.agent.status.is_final else "has taken"
    took = (
        f"{verb} {seconds_of(_length(timeline))} from the start of its level: {_parts([timeline])}"
    )
    patient = timeline.waiting_s > timeline.calling_s
    remedy = _remedy([timeline], history) if patient else ""
    agents = (timeline.agent.name,)
    return (Finding(reason=Reason.SLOW, agents=agents, text=took, remedy=remedy),)


def explain_money(
    history: RunHistory, planned_usd: Mapping[str, Decimal] | None = None
) -> tuple[Finding, ...]:
    """Explain the money: the largest shares, failed calls, and agents that cost more than expected.

    The amounts are those of the ledger. They include the calls of sub-workflows; the cost of a
    sub-workflow counts for the agent that contains the sub-workflow.

    Args:
        history: The run.
        planned_usd: Planned costs by agent; an agent without a known cost is left out.
    """
    by_agent = _sums(history.calls)
    total = sum(by_agent.values(), Decimal(0))
    if not history.calls:
        return ()
    most = sorted(by_agent.items(), key=lambda item: -item[1])[:MOST_EXPENSIVE]
    enough = [item for item in most if item[1] > total * NOTABLE_SHARE]
    shares = ", ".join(f"{name} {money(usd)} ({usd / total:.0%})" for name, usd in enough)
    found = [
        Finding(
            reason=Reason.EXPENSIVE,
            text=(
                f"has spent {money(total)} of {money(history.run.limit_usd)} in {_calls(history)}"
                + (f"; most of it: {shares}" if shares else "")
            ),
        )
    ]
    wasted = [call for call in history.calls if call.outcome != "ok"]
    wasted_usd = sum((call.cost_usd for call in wasted), Decimal(0))
    if wasted_usd > total * NOTABLE_SHARE:
        found.append(
            Finding(
                reason=Reason.EXPENSIVE,
                agents=tuple(dict.fromkeys(call.name for call in wasted)),
                text=(
                    f"paid {money(wasted_usd)} ({wasted_usd / total:.0%} of the run) for calls "
                    f"that failed: {names([call.outcome for call in wasted])}"
                ),
            )
        )
    unconfirmed = [call for call in history.calls if call.kind == "unconfirmed"]
    if unconfirmed:
        found.append(
            Finding(
                reason=Reason.EXPENSIVE,
                agents=tuple(dict.fromkeys(call.name for call in unconfirmed)),
                text=(
                    f"is booked at the worst case, {money(_total(unconfirmed))}, for calls whose "
                    "end is not known"
                ),
            )
        )
    return (*found, *_above(by_agent, history, planned_usd or {}))


def explain_agent_money(
    history: RunHistory, planned_usd: Mapping[str, Decimal] | None = None
) -> tuple[Finding, ...]:
    """Explain the money of one agent run.

    Args:
        history: The history of only this agent run (``RunHistory.focused``).
        planned_usd: Planned costs by agent.
    """
    (agent,) = history.run.agents
    total = sum((call.cost_usd for call in history.calls), Decimal(0))
    if not history.calls:
        return ()
    text = f"has spent {money(total)} in {_calls(history)}"
    spent = Finding(reason=Reason.EXPENSIVE, agents=(agent.name,), text=text)
    rest = (each for each in explain_money(history, planned_usd) if each.agents)
    return (spent, *rest)


def _calls(history: RunHistory) -> str:
    return counted(sum(call.kind != "correction" for call in history.calls), "call")


def _above(
    by_agent: Mapping[str, Decimal], history: RunHistory, planned_usd: Mapping[str, Decimal]
) -> list[Finding]:
    found = []
    total = sum(by_agent.values(), Decimal(0))
    planned_total = sum(planned_usd.values(), Decimal(0))
    if planned_total and total > MUCH * planned_total:
        text = f"cost {total / planned_total:.1f} times the planned {money(planned_total)}"
        found.append(Finding(reason=Reason.EXPENSIVE, text=text))
    for name, cost in by_agent.items():
        for what, known in (("usual", history.usual_usd), ("planned", planned_usd)):
            expected = known.get(name)
            if expected and cost > MUCH * expected and cost > total * NOTABLE_SHARE:
                found.append(
                    Finding(
                        reason=Reason.EXPENSIVE,
                        agents=(name,),
                        text=f"cost {cost / expected:.1f} times the {what} amount "
                        f"({money(cost)} instead of {money(expected)}): {_why(name, history)}",
                    )
                )
    return found


def _why(name: str, history: RunHistory) -> str:
    calls = [call for call in history.calls if call.agent == name and call.kind != "correction"]
    prompt = sum(call.prompt_tokens for call in calls)
    output = sum(call.output_tokens for call in calls)
    failed = sum(call.outcome != "ok" for call in calls)
    text = f"{counted(len(calls), 'call')}, {prompt:,} tokens read, {output:,} written"
    return f"{text}, {counted(failed, 'call')} failed" if failed else text


def _sums(calls: tuple[Call, ...]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for call in calls:
        sums[call.agent] += call.cost_usd
    return dict(sums)


def _total(calls: list[Call]) -> Decimal:
    return sum((call.cost_usd for call in calls), Decimal(0))


def _length(timeline: AgentTimeline) -> float:
    return timeline.calling_s + timeline.waiting_s


def _parts(timelines: list[AgentTimeline]) -> str:
    sums = {phase: sum(each.seconds(phase) for each in timelines) for phase in Phase}
    parts = sorted(sums.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{seconds_of(spent)} {WORDS[phase]}" for phase, spent in parts if spent > SHOWN_S
    )


def _remedy(timelines: list[AgentTimeline], history: RunHistory) -> str:
    phases = [phase for phase in Phase if phase is not Phase.CALLING]
    most = max(phases, key=lambda phase: sum(each.seconds(phase) for each in timelines))
    whose = {each.agent.name for each in timelines}
    if most is Phase.HELD and any(wait.agent in whose for wait in history.waits):
        return ""  # each of these waits is a finding with a remedy of its own
    return {
        Phase.QUEUED: "more workers, or a higher max_parallel_agents",
        Phase.HELD: "agentchord limits shows the limits, agentchord budgets the budgets",
        Phase.LOST: "",
        Phase.AWAY: "the errors behind the retries: agentchord logs RUN --level warning",
    }[most]


def _shown(path: list[str]) -> list[str]:
    return path if len(path) <= 8 else [*path[:4], "...", *path[-3:]]  # noqa: PLR2004  one line

"""Explains why agents have failed or have not run, and which attempts were repeated.

The elements of lists and the agents of sub-workflows are explained in the same way as agents.
"""

from collections import Counter, defaultdict

from app.domain.counts import counted
from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import error_named
from app.monitoring.findings import Finding, Reason, grouped
from app.monitoring.run_facts import Attempt, superseded
from app.monitoring.run_history import RunHistory
from app.monitoring.whole_run import PARTIAL, Incomplete, cause_of
from app.monitoring.wording import names

RETRY = "agentchord retry repairs only what failed, was cancelled or is partial"


def explain_outcomes(history: RunHistory) -> tuple[Finding, ...]:
    """Explain failures, agents that did not run, retries and fallbacks."""
    found = [*_run_ended(history)]
    found += [_incomplete(one, history) for one in history.incomplete]
    found += _tried_again(history)
    found += [
        Finding(
            reason=Reason.FALLBACK,
            agents=(event.name,),
            text=(
                f"went on with {event.data.get('next_provider')}/{event.data.get('next_model')} "
                f"after {event.data.get('error_class')} of "
                f"{event.data.get('provider')}/{event.data.get('model')}"
            ),
        )
        for event in history.events
        if event.type == "agent_fallback" and event.name is not None
    ]
    return grouped(found)


def _run_ended(history: RunHistory) -> list[Finding]:
    run = history.run
    if run.status is WorkflowStatus.PARTIALLY_COMPLETED:
        failed = sum(agent.status.is_failure for agent in run.agents)
        cancelled = sum(agent.status is AgentStatus.CANCELLED for agent in run.agents)
        parts = (
            f"{counted(failed, 'agent')} failed" if failed else "",
            f"{counted(cancelled, 'agent')} cancelled" if cancelled else "",
            run.shortfall,
            run.error or "",
        )
        why = ", ".join(filter(None, parts))
    else:
        why = run.error or ""
    if not run.status.is_final or not why:
        return []
    return [Finding(reason=Reason.RUN_ENDED, text=f"ended {run.status}: {why}")]


def _incomplete(one: Incomplete, history: RunHistory) -> Finding:
    agents = (one.path,)
    if one.is_failure:
        return _failed(one, history)
    if one.outcome == PARTIAL:
        text = f"completed in part: {cause_of(one)}"
        return Finding(reason=Reason.PARTIAL, agents=agents, text=text)
    if one.outcome == AgentStatus.SKIPPED:
        text = f"did not run: {one.error or 'its condition was false'}"
        return Finding(reason=Reason.SKIPPED, agents=agents, text=text)
    error = one.error or "the run was stopped"
    upstream = error.startswith("upstream failed")
    return Finding(
        reason=Reason.UPSTREAM if upstream else Reason.CANCELLED,
        agents=agents,
        text=f"was cancelled: {error}",
    )


def _failed(one: Incomplete, history: RunHistory) -> Finding:
    many = f" after {counted(one.retries, 'retry', 'retries')}" if one.retries else ""
    known = error_named(one.error_class) if one.error_class else None
    # An inner run is retried only with its outer run, and only if the agent around it failed.
    is_inside = "/" in one.path or history.run.part_of is not None
    remedies = (known.advice if known else "", "" if is_inside else RETRY)
    cause = cause_of(one)
    return Finding(
        reason=Reason.FAILED,
        agents=(one.path,),
        text=f"ended {one.outcome}{many}" + (f": {cause}" if cause else ""),
        remedy="; ".join(filter(None, remedies)) if history.run.status.is_final else "",
    )


def _tried_again(history: RunHistory) -> list[Finding]:
    failed: dict[str, list[Attempt]] = defaultdict(list)
    lost: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in superseded(history.attempts):
        if attempt.outcome == "failed":
            failed[attempt.name].append(attempt)
    for attempt in history.attempts:
        if attempt.outcome == "lost":
            lost[attempt.name].append(attempt)
    return [
        *(_retried(name, attempts) for name, attempts in failed.items()),
        *(
            Finding(
                reason=Reason.RECOVERED,
                agents=(name,),
                text="was started again because its worker had died: "
                + names([each.worker for each in attempts]),
            )
            for name, attempts in lost.items()
        ),
    ]


def _retried(name: str, failed: list[Attempt]) -> Finding:
    kinds = Counter(each.error_class or "Error" for each in failed)
    text = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    times = "once" if len(failed) == 1 else counted(len(failed), "time")
    return Finding(
        reason=Reason.RETRIED,
        agents=(name,),
        text=f"was retried {times}: {text}; the last was {failed[-1].error}",
    )

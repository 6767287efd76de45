"""Explains why agents have failed or have not run, and which attempts were repeated.

The elements of lists and the agents of sub-workflows are explained in the same way as agents.
"""

import re
from collections import Counter, defaultdict
from shlex import quote

from app.domain.counts import counted
from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import BudgetExceeded, error_named
from app.monitoring.explain_waited import run_budget
from app.monitoring.findings import Finding, Reason, grouped
from app.monitoring.run_facts import Attempt, superseded
from app.monitoring.run_history import RunHistory
from app.monitoring.whole_run import PARTIAL, Incomplete, cause_of
from app.monitoring.wording import names

#: The name of the limit in an error of the class BudgetExceeded.
SPENT = re.compile(
    r"the (?:cost_limit of the agent"
    r"|budget of (?P<scope>\w+)(?: (?P<subject>.+?))?(?: per (?P<period>\w+))?) is \$"
)
REPAIRS = "repairs only what failed, was cancelled or is partial"


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
    retry = retry_of(history)
    if one.is_failure:
        return _failed(one, history)
    if one.outcome == PARTIAL:
        text = f"completed in part: {cause_of(one)}"
        return Finding(reason=Reason.PARTIAL, agents=agents, text=text, remedy=retry)
    if one.outcome == AgentStatus.SKIPPED:
        text = f"did not run: {one.error or 'its condition was false'}"
        return Finding(reason=Reason.SKIPPED, agents=agents, text=text)
    error = one.error or "the run was stopped"
    upstream = error.startswith("upstream failed")
    return Finding(
        reason=Reason.UPSTREAM if upstream else Reason.CANCELLED,
        agents=agents,
        text=f"was cancelled: {error}",
        remedy=retry,
    )


def retry_of(history: RunHistory) -> str:
    """Return the command that repairs an ended run; an inner run is repaired with its outer run."""
    run = history.run
    if not run.status.is_final or run.pruned_at is not None:
        return ""
    if run.outermost is None:
        return f"agentchord retry {run.id} {REPAIRS}"
    return f"agentchord retry {run.outermost} {REPAIRS}, once that run has ended"


def _failed(one: Incomplete, history: RunHistory) -> Finding:
    many = f" after {counted(one.retries, 'retry', 'retries')}" if one.retries else ""
    known = error_named(one.error_class) if one.error_class else None
    remedies: tuple[str, ...] = (known.advice if known else "", retry_of(history))
    if known is BudgetExceeded:
        remedies = _money_for(cause_of(one), history)
    cause = cause_of(one)
    return Finding(
        reason=Reason.FAILED,
        agents=(one.path,),
        text=f"ended {one.outcome}{many}" + (f": {cause}" if cause else ""),
        remedy="; ".join(filter(None, remedies)) if history.run.status.is_final else "",
    )


def _money_for(cause: str, history: RunHistory) -> tuple[str, ...]:
    """Return what gives money to an agent, by the budget that its error names."""
    retry, found = retry_of(history), SPENT.search(cause)
    if found is None:
        return BudgetExceeded.advice, retry
    scope, subject, period = found["scope"], found["subject"] or "", found["period"]
    if scope == "run":
        return run_budget(history.run), "or lower max_tokens in a new run"
    if scope is None:
        return ("give the agent a larger cost_limit, or lower max_tokens, in a new run",)
    words = ["agentchord budgets set", scope, quote(subject) if subject else "", "--limit USD"]
    words.append(f"--period {period}" if period else "")
    return " ".join(filter(None, words)), retry


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

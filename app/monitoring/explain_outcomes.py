"""Explains why agents have failed or have not run, and which attempts were repeated."""

from app.domain.status import AgentStatus
from app.errors import error_named
from app.monitoring.findings import Finding, Reason, grouped
from app.monitoring.progress import AgentProgress
from app.monitoring.run_history import RunHistory, superseded
from app.monitoring.wording import names

RETRY = "agentchord retry repairs only what failed, was cancelled or is partial"


def explain_outcomes(history: RunHistory) -> tuple[Finding, ...]:
    """Explain failures, agents that did not run, retries and fallbacks."""
    found: list[Finding] = []
    run = history.run
    if run.status.is_final and run.error:
        found.append(Finding(reason=Reason.RUN_ENDED, text=f"ended {run.status}: {run.error}"))
    for agent in run.agents:
        if agent.status.is_failure:
            found.append(_failed(agent, history))
        elif agent.status is AgentStatus.CANCELLED:
            found.append(_cancelled(agent))
        elif agent.status is AgentStatus.SKIPPED:
            found.append(
                Finding(
                    reason=Reason.SKIPPED,
                    agents=(agent.name,),
                    text=f"did not run: {agent.error or 'its condition was false'}",
                )
            )
        found += _tried_again(agent, history)
    found += [
        Finding(
            reason=Reason.FALLBACK,
            agents=(event.agent,),
            text=(
                f"went on with {event.data.get('next_provider')}/{event.data.get('next_model')} "
                f"after {event.data.get('error_class')} of "
                f"{event.data.get('provider')}/{event.data.get('model')}"
            ),
        )
        for event in history.events
        if event.type == "agent_fallback" and event.agent is not None
    ]
    return grouped(found)


def _failed(agent: AgentProgress, history: RunHistory) -> Finding:
    tries = [each for each in history.attempts if each.agent == agent.name]
    classes = [each.error_class for each in tries if each.error_class]
    kind = f"{classes[-1]}: " if classes else ""
    error = agent.error or f"{agent.items_failed} of its items failed"
    many = f" after {agent.retries} retries" if agent.retries else ""
    known = error_named(classes[-1]) if classes else None
    advice = f"{known.advice}; " if known else ""
    return Finding(
        reason=Reason.FAILED,
        agents=(agent.name,),
        text=f"ended {agent.status}{many}: {kind}{error}",
        remedy=f"{advice}{RETRY}" if history.run.status.is_final else "",
    )


def _cancelled(agent: AgentProgress) -> Finding:
    error = agent.error or "the run was stopped"
    upstream = error.startswith("upstream failed")
    return Finding(
        reason=Reason.UPSTREAM if upstream else Reason.CANCELLED,
        agents=(agent.name,),
        text=f"was cancelled: {error}",
    )


def _tried_again(agent: AgentProgress, history: RunHistory) -> list[Finding]:
    tries = [each for each in history.attempts if each.agent == agent.name]
    failed = [each for each in superseded(tries) if each.outcome == "failed"]
    lost = [each for each in tries if each.outcome == "lost"]
    found = []
    if failed:
        kinds = dict.fromkeys(each.error_class or "Error" for each in failed)
        counts = [(kind, sum(each.error_class == kind for each in failed)) for kind in kinds]
        text = ", ".join(f"{count} x {kind}" for kind, count in counts)
        times = "once" if len(failed) == 1 else f"{len(failed)} times"
        found.append(
            Finding(
                reason=Reason.RETRIED,
                agents=(agent.name,),
                text=f"was retried {times}: {text}; the last was {failed[-1].error}",
            )
        )
    if lost:
        workers = names([each.worker for each in lost])
        found.append(
            Finding(
                reason=Reason.RECOVERED,
                agents=(agent.name,),
                text=f"was started again because its worker had died: {workers}",
            )
        )
    return found

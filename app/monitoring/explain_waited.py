"""Explains past waits: names each limit, budget and circuit, and the time of the wait."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.monitoring.findings import Finding, Reason
from app.monitoring.progress import RunProgress
from app.monitoring.run_facts import Wait
from app.monitoring.run_history import RunHistory
from app.monitoring.wording import seconds_of

#: Shorter waits are not explained.
NOTABLE_S = 0.5
LIMITS = "agentchord limits shows it, agentchord limits set changes it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Awaited:
    """The thing for which an agent waits.

    Attributes:
        reason: Kind of the wait.
        text: Name of the thing, which follows "waits for" in a sentence.
        remedy: Possible remedy; empty if no remedy is known.
    """

    reason: Reason
    text: str
    remedy: str = ""


def run_budget(run: RunProgress) -> str:
    """Return how the budget of a run is raised; no budget of a run that goes on is raised."""
    command = f"agentchord retry {run.outermost or run.id} --cost-budget USD"
    # The limit of the outermost run is not known here if this run is an inner one.
    least = f", where USD is at least {run.limit_usd:.2f}" if run.outermost is None else ""
    return f"once the run has ended: {command}{least}"


def awaited(waits_for: str, run: RunProgress) -> Awaited:
    """Read a wait of the history, such as ``openai/default requests_per_day``, of a run."""
    if waits_for.startswith("money"):
        is_the_runs = waits_for.startswith("money of the budget of run ")
        return Awaited(
            reason=Reason.MONEY,
            text=waits_for,
            remedy=f"give a larger cost_budget, {run_budget(run)}"
            if is_the_runs
            else "raise the budget: agentchord budgets set",
        )
    name, _, what = waits_for.rpartition(" ")
    if what == "circuit":
        return Awaited(
            reason=Reason.CIRCUIT,
            text=f"the {waits_for}, open because calls had failed",
            remedy="agentchord limits shows it",
        )
    if what == "pause":
        return Awaited(
            reason=Reason.PROVIDER_PAUSE,
            text=f"a pause of {name} that the provider had asked for (a 429, or Retry-After)",
        )
    if what == "without_redis":
        return Awaited(
            reason=Reason.LIMIT,
            text=f"Redis, which did not answer and counts the rate limit {name}",
            remedy="agentchord doctor",
        )
    return Awaited(reason=Reason.LIMIT, text=f"the rate limit {waits_for}", remedy=LIMITS)


def explain_waited(history: RunHistory) -> tuple[Finding, ...]:
    """Explain the past waits; each cause has one finding, and the longest wait comes first.

    Args:
        history: The run.
    """
    by_name: dict[str, list[Wait]] = {}
    for wait in history.waits:
        by_name.setdefault(wait.waits_for, []).append(wait)
    longest_first = sorted(by_name.items(), key=lambda item: -_total(item[1]))
    return tuple(
        _finding(name, waits, history.run)
        for name, waits in longest_first
        if _total(waits) >= NOTABLE_S
    )


def _finding(name: str, waits: Sequence[Wait], run: RunProgress) -> Finding:
    what, time = awaited(name, run), seconds_of(_total(waits))
    if sum(each.count for each in waits) > 1:
        longest_s = max(each.longest_s for each in waits)
        time = f"{time} in all, {seconds_of(longest_s)} at most,"
    return Finding(
        reason=what.reason,
        agents=tuple(dict.fromkeys(each.name for each in waits)),
        text=f"waited {time} for {what.text}",
        remedy=what.remedy,
    )


def _total(waits: Iterable[Wait]) -> float:
    return sum(each.seconds for each in waits)

"""Explains the activity or the wait of each agent that has not ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from shlex import quote
from typing import Any
from uuid import UUID

from app.domain.budgets import budget_label
from app.domain.counts import counted
from app.domain.status import WorkflowStatus
from app.monitoring.explain_waited import LIMITS, awaited, run_budget
from app.monitoring.findings import Finding, Reason, grouped
from app.monitoring.progress import AgentProgress
from app.monitoring.run_facts import BudgetState, Standing
from app.monitoring.run_history import RunHistory
from app.monitoring.whole_run import Place
from app.monitoring.wording import money, names, seconds_of

#: Shorter waits before the next call are not explained.
SOON_S = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """The current state of the rest of the cluster. A part that could not be read is empty.

    Attributes:
        buckets: The rate limits' buckets that are in use, by name, from ``LiveState.buckets``.
        bucket_of: A function that returns the bucket of a provider and a model.
        circuits: Circuit breakers that have counted failures, from ``LiveState.circuits``.
        unserved: Queues to which no worker listens.
    """

    buckets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bucket_of: Callable[[str, str], str] = "{}/{}".format
    circuits: Sequence[Mapping[str, Any]] = ()
    unserved: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Situation:
    """The run, the cluster, and the agents of each inner run that have not ended."""

    history: RunHistory
    live: Live
    open_inside: Mapping[UUID, Sequence[Standing]]

    def place(self, one: Standing) -> Place:
        """Return the run of an agent run."""
        run = self.history.run
        own = Place(run_id=run.id, workflow=run.workflow, status=run.status, level=run.level)
        return own if self.is_outer(one) else self.history.places.get(one.run_id or run.id, own)

    def is_outer(self, one: Standing) -> bool:
        """Return whether an agent run belongs to the outer run."""
        return one.run_id in (None, self.history.run.id)

    def open_beside(self, one: Standing) -> list[tuple[str, int]]:
        """Return the name and level of each agent of the same run that has not ended."""
        if self.is_outer(one):
            agents = self.history.run.agents
            return [(agent.name, agent.level) for agent in agents if not agent.status.is_final]
        start = len(self.place(one).prefix)
        found = self.open_inside.get(one.run_id, ()) if one.run_id else ()
        return [(each.name[start:], each.level) for each in found if not each.is_element]


def explain_waits(history: RunHistory, live: Live) -> tuple[Finding, ...]:
    """Explain each agent run that has not ended; agent runs with the same reason share one finding.

    The elements of lists and the agents of sub-workflows are explained in the same way as agents.

    Args:
        history: The run.
        live: The cluster.
    """
    inside: dict[UUID, list[Standing]] = {}
    for one in history.standing:
        if one.run_id is not None:
            inside.setdefault(one.run_id, []).append(one)
    situation = _Situation(history=history, live=live, open_inside=inside)
    open_ = {agent.name for agent in history.run.agents if not agent.status.is_final}
    found = [
        replace(finding, agents=(one.name,))
        for one in history.standing
        if one.agent in open_ and (finding := _told(one, situation)) is not None
    ]
    found += [
        replace(_goes_on(agent), agents=(agent.name,))
        for agent in history.run.agents
        if agent.status == "waiting"
    ]
    return grouped(found)


def _told(one: Standing, situation: _Situation) -> Finding | None:
    if one.status != "waiting":
        return _stands(one, situation)
    # The progress of the run tells more about the waiting agents of the outer run.
    return None if situation.is_outer(one) else _goes_on_inside(one)


def _stands(one: Standing, situation: _Situation) -> Finding:
    history, live, place = situation.history, situation.live, situation.place(one)
    if one.status == "running":
        return _runs(one, history, live)
    if place.status is WorkflowStatus.PAUSED:
        return Finding(
            reason=Reason.PAUSED,
            text="waits: the run is paused, and no agent starts until the run is resumed",
            # The run around a paused sub-workflow is paused, too.
            remedy=f"agentchord resume {history.run.outermost or history.run.id}",
        )
    if place.status is WorkflowStatus.PENDING:
        return _unserved("scheduler", live) or _is_admitted_later(one, situation)
    if one.level > place.level:
        return _comes_later(one, situation)
    return (
        _unserved(one.provider, live)
        or _unserved("scheduler", live)
        or (_was_given_back(one, history) if one.ready_at > history.now else _is_ready(one))
    )


def _is_ready(one: Standing) -> Finding:
    return Finding(
        reason=Reason.PLACE,
        text=(
            "is ready but not claimed yet: max_parallel_agents of its workflow are "
            f"running, or the workers of queue {one.provider!r} are busy"
        ),
        remedy=f"agentchord worker {one.provider} starts one more worker; a higher "
        "max_parallel_agents holds for the next run",
    )


def _is_admitted_later(one: Standing, situation: _Situation) -> Finding:
    # An inner run does not count for engine.max_concurrent_workflows.
    text = (
        "waits for the run to be admitted: engine.max_concurrent_workflows runs are "
        "running, or the scheduler has not looked yet"
        if situation.is_outer(one)
        else "waits for its sub-workflow to be admitted: the scheduler has not looked yet"
    )
    return Finding(reason=Reason.ADMISSION, text=text)


def _unserved(queue: str, live: Live) -> Finding | None:
    if queue not in live.unserved:
        return None
    return Finding(
        reason=Reason.NO_WORKER,
        text=f"waits for a worker, because no worker serves queue {queue!r}",
        remedy=f"agentchord up, or agentchord worker {queue}",
    )


def _comes_later(one: Standing, situation: _Situation) -> Finding:
    beside = situation.open_beside(one)
    open_ = {name for name, _ in beside}
    needed = [n for n in situation.history.dependencies.get(one.name, ()) if n in open_]
    if needed:
        return Finding(
            reason=Reason.DEPENDENCY,
            text=f"waits for its dependencies: {names(needed)}",
        )
    holding = [name for name, level in beside if level < one.level]
    if not holding and (lacking := _unserved("scheduler", situation.live)):
        return lacking
    return Finding(
        reason=Reason.LEVEL,
        text=f"waits for earlier levels: {names(holding)} not done"
        if holding
        else "waits for its level to be started",
    )


def _was_given_back(one: Standing, history: RunHistory) -> Finding:
    left = seconds_of((one.ready_at - history.now).total_seconds())
    if one.waits_for is None:
        errors = [each for each in history.attempts if each.name == one.name and each.error]
        because = f" after {errors[-1].error_class}: {errors[-1].error}" if errors else ""
        return Finding(
            reason=Reason.BACKOFF,
            text=f"waits {left} before its next try (retry {one.retries}){because}",
        )
    what = awaited(one.waits_for, history.run)
    if what.reason is Reason.MONEY:
        text = f"waits for {what.text}, and tries again in {left} or as soon as money is free"
    else:
        text = f"waits {left} for {what.text}"
    return Finding(reason=what.reason, text=text, remedy=what.remedy)


def _runs(one: Standing, history: RunHistory, live: Live) -> Finding:
    if (lacking := _unserved(one.provider, live)) is not None:
        # The watchdog of any worker takes the agent over when its lease is over.
        return replace(lacking, text=f"was running on {one.worker}, and {lacking.text}")
    if one.tool is not None:
        return Finding(reason=Reason.TOOL, text=f"runs the tool {one.tool!r}")
    if one.calling_since is not None:
        called = one.called or f"{one.provider}/{one.model}"
        since = _since(one.calling_since, history)
        return Finding(reason=Reason.CALLING, text=f"calls {called}, for {since}")
    if one.money_since is not None:
        return _waits_for_money(one, _since(one.money_since, history), history)
    return _limited(one, live) or Finding(
        reason=Reason.WORKING,
        text=f"is running on {one.worker or 'a worker'}, with no call under way at this moment",
    )


def _waits_for_money(one: Standing, since: str, history: RunHistory) -> Finding:
    needed = one.money_usd or Decimal(0)
    short = [each for each in one.budgets if room(each) < needed] or list(one.budgets)
    budgets = "; ".join(
        f"{budget_label(each.scope, each.subject, each.period)} has {money(room(each))} free of "
        f"{money(each.limit_usd)} ({money(each.held_usd)} held by calls under way)"
        for each in short
    )
    return Finding(
        reason=Reason.MONEY,
        text=(
            f"waits for money, for {since}: its next call may cost up to {money(needed)}, "
            f"and {budgets or 'its budgets have too little free'}"
        ),
        remedy="it continues when calls under way cost less than was held; a larger budget: "
        + "; ".join(dict.fromkeys(_raise(each, history) for each in short)),
    )


def _raise(budget: BudgetState, history: RunHistory) -> str:
    """Return the command that raises a budget."""
    if budget.scope == "run":
        return run_budget(history.run)
    subject = f" {quote(budget.subject)}" if budget.subject else ""
    period = f" --period {budget.period}" if budget.period else ""
    return f"agentchord budgets set {budget.scope}{subject} --limit USD{period}"


def _limited(one: Standing, live: Live) -> Finding | None:
    for circuit in live.circuits:
        if (circuit["provider"], circuit["model"]) == (one.provider, one.model) and (
            circuit["state"] != "closed"
        ):
            return Finding(
                reason=Reason.CIRCUIT,
                text=(
                    f"waits for the circuit of {one.provider}/{one.model}, which is "
                    f"{circuit['state']} because calls failed; next try in "
                    f"{seconds_of(float(circuit['wait_s']))}"
                ),
                remedy="agentchord limits shows the circuits",
            )
    name = live.bucket_of(one.provider, one.model)
    bucket = live.buckets.get(name)
    if bucket is None:
        return None
    if (paused_s := float(bucket["paused_s"])) > SOON_S:
        return Finding(
            reason=Reason.PROVIDER_PAUSE,
            text=(
                f"waits {seconds_of(paused_s)}: the provider paused all calls of {name} (a 429 "
                "with Retry-After)"
            ),
        )
    if bucket["waiting"] and (limit := _binding(bucket)):
        return Finding(
            reason=Reason.LIMIT,
            text=(
                f"waits for the rate limit {name}: {limit}; "
                f"{_waiting(int(bucket['waiting']))} for it{_next_free(bucket)}"
            ),
            remedy=LIMITS,
        )
    return None


def _binding(bucket: Mapping[str, Any]) -> str:
    """Describe a bucket by its limit with the smallest remaining share."""
    concurrency = bucket.get("concurrency")
    if concurrency and int(bucket["in_flight"]) >= int(concurrency):
        most, verb = int(concurrency), "is" if int(concurrency) == 1 else "are"
        return f"{bucket['in_flight']} of {counted(most, 'concurrent request')} {verb} under way"
    tiers = [tier for tier in bucket.get("tiers", ()) if tier["capacity"]]
    if not tiers:
        return ""
    tier = min(tiers, key=lambda each: float(each["level"]) / float(each["capacity"]))
    left, limit = max(float(tier["level"]), 0.0), tier.get("learned_limit") or tier["limit"]
    return f"{tier['tier'].replace('_', ' ')}, {left:,.1f} left, limit {float(limit):,.0f}"


def _waiting(requests: int) -> str:
    verb = "waits" if requests == 1 else "wait"
    return f"{counted(requests, 'request')} of the cluster {verb}"


def _next_free(bucket: Mapping[str, Any]) -> str:
    free_s = float(bucket.get("next_free_s") or 0)
    return f", the next may start in {seconds_of(free_s)}" if free_s > SOON_S else ""


def _goes_on(agent: AgentProgress) -> Finding:
    if agent.sub_run_id is not None:
        return Finding(
            reason=Reason.SUB_RUN,
            text=f"waits for run {agent.sub_run_id}, its sub-workflow",
            remedy=f"agentchord explain {agent.sub_run_id}",
        )
    return Finding(
        reason=Reason.ITEMS,
        text=f"works on its items: {agent.items_ended} of {agent.item_count} have ended",
    )


def _goes_on_inside(one: Standing) -> Finding | None:
    """Explain a list or a sub-workflow of an inner run, whose own agent runs are explained, too."""
    if one.item_count is not None:
        return Finding(reason=Reason.ITEMS, text=f"works on its {counted(one.item_count, 'item')}")
    if one.is_element:
        return None
    return Finding(reason=Reason.SUB_RUN, text="waits for its sub-workflow")


def room(budget: BudgetState) -> Decimal:
    """Return the dollars of a budget that are neither spent nor held."""
    return max(budget.limit_usd - budget.spent_usd - budget.held_usd, Decimal(0))


def _since(moment: datetime, history: RunHistory) -> str:
    return seconds_of(max((history.now - moment).total_seconds(), 0.0))

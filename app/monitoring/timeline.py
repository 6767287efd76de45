"""The timeline of a run: the waits and calls of each agent, and the critical path.

The time of an agent with a list, or with a sub-workflow, consists of the waits and calls of all
agent runs inside this agent: the agent calls as long as one of these agent runs calls.

The agents of a level start at the same time. Therefore a level waits for the last agent of the
previous level, even if no agent of the level depends on that last agent. The critical path is the
chain of these last agents. This path is measured, not planned.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain, groupby, pairwise, zip_longest

from app.domain.kinds import QUEUES_OF_KINDS
from app.monitoring.progress import AgentProgress
from app.monitoring.run_facts import Attempt
from app.monitoring.run_history import RunHistory

Interval = tuple[datetime, datetime]
#: Queues of agents that have no calls in the ledger; the whole attempts of these agents are work.
WORKING_QUEUES = frozenset(QUEUES_OF_KINDS.values())


class Phase(StrEnum):
    """The activity of an agent; every phase except CALLING is a wait."""

    QUEUED = "queued"  # ready, and not claimed by a lane
    HELD = "held"  # waits in its lane, or handed back, for a limit, money or a circuit
    LOST = "lost"  # the worker has died, and no watchdog has noticed the death yet
    AWAY = "away"  # between attempts: a backoff, or no worker is free
    CALLING = "calling"  # a request is under way, or a tool or function runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A period in which an agent was in one phase."""

    phase: Phase
    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """The length of the period in seconds."""
        return (self.end - self.start).total_seconds()


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentTimeline:
    """The timeline of one agent.

    Attributes:
        agent: The agent.
        spans: Phases of the agent, from the start of its level to the agent's end. Empty if the
            agent never started.
    """

    agent: AgentProgress
    spans: tuple[Span, ...] = ()

    def seconds(self, *phases: Phase) -> float:
        """Sum the time in these phases."""
        return sum(span.seconds for span in self.spans if span.phase in phases)

    @property
    def calling_s(self) -> float:
        """The time in which the agent called or worked."""
        return self.seconds(Phase.CALLING)

    @property
    def waiting_s(self) -> float:
        """The time in which the agent waited, for any reason."""
        return self.seconds(*(phase for phase in Phase if phase is not Phase.CALLING))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A part of the critical path.

    Attributes:
        timeline: The agent that ended last in its level.
        is_dependency: Whether the next step depends on this agent. If not, the next step only waits
            for this agent's level.
    """

    timeline: AgentTimeline
    is_dependency: bool = True

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.timeline.agent.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """The timeline of a run.

    Attributes:
        start: Time at which the run was admitted. If the run was not admitted yet, ``start`` is the
            time at which the run was enqueued.
        end: Time at which the run ended; the current time if the run has not ended.
        agents: Timelines of the agents, by level.
        critical_path: The agents that determine the duration of the run, from first to last.
        pauses: Periods in which the run was paused.
    """

    start: datetime
    end: datetime
    agents: tuple[AgentTimeline, ...]
    critical_path: tuple[Step, ...]
    pauses: tuple[Interval, ...] = ()

    @property
    def seconds(self) -> float:
        """Duration of the run, or its duration so far."""
        return (self.end - self.start).total_seconds()

    def of(self, name: str) -> AgentTimeline | None:
        """Find an agent by its name."""
        return next((each for each in self.agents if each.agent.name == name), None)


def timeline_of(history: RunHistory) -> Timeline:
    """Build the timeline of a run.

    Args:
        history: The run.
    """
    end = history.run.finished_at or history.now
    tries = _tries(history)
    released = _released(history, tries)
    agents = _timelines(history, tries, released)
    return Timeline(
        start=history.run.started_at or history.run.created_at,
        end=end,
        agents=agents,
        critical_path=_critical_path(history, agents),
        pauses=_pauses(history, end),
    )


def element_timeline(history: RunHistory, element: AgentProgress) -> AgentTimeline:
    """Build the timeline of one element of a list; the list is an agent of the run itself.

    Args:
        history: The whole run.
        element: The element.
    """
    released = _released(history, _tries(history))
    own = history.focused(element)
    return _timelines(own, _tries(own), released)[0]


def _timelines(
    history: RunHistory,
    tries: Mapping[str, Sequence[Interval]],
    released: Sequence[datetime | None],
) -> tuple[AgentTimeline, ...]:
    """Build the timelines of the agents; ``released`` has the start of each level."""
    end = history.run.finished_at or history.now
    busy, away = _busy(history), _long_waits(history)
    lost = _tries(history, lambda attempt: attempt.outcome == "lost")
    held = _tries(history, lambda attempt: not attempt.is_container)
    between, containers = _between(history), {a.agent for a in history.attempts if a.is_container}
    timelines = []
    for agent in history.run.agents:
        name, level_start = agent.name, released[agent.level]
        if name not in tries:
            timelines.append(_unstarted(agent, level_start, end))
            continue
        started = min(first for first, _ in tries[name])
        spans = _spans(
            start=min(level_start or started, started),
            end=_end(agent, tries[name], end),
            busy=busy.get(name, []),
            tries=held.get(name, []),
            lost=lost.get(name, []),
            waits=away.get(name, []),
            between=between.get(name, []) if name in containers else None,
        )
        timelines.append(AgentTimeline(agent=agent, spans=spans))
    return tuple(timelines)


def _released(history: RunHistory, started: Container[str]) -> list[datetime | None]:
    """Return the time at which each level could begin; None for a level that cannot begin yet."""
    found: list[datetime | None] = [history.run.started_at]
    for level in history.run.levels():
        before = found[-1]
        if before is None or not all(agent.status.is_final for agent in level):
            found.append(None)
            continue
        # Agents without an attempt were cancelled or copied, and have delayed no other agent.
        ends = (agent.finished_at for agent in level if agent.name in started)
        found.append(max([before, *(end for end in ends if end is not None)]))
    return found


def _end(agent: AgentProgress, tries: Sequence[Interval], now: datetime) -> datetime:
    """Return the end of an agent's last attempt, or the current time if the agent has not ended."""
    if agent.finished_at is None:
        return now
    return min(agent.finished_at, max(last for _, last in tries))


def _unstarted(agent: AgentProgress, released: datetime | None, end: datetime) -> AgentTimeline:
    """Build the timeline of an agent without attempts; the wait starts when the level can begin."""
    if released is None or agent.status.is_final or released >= end:
        return AgentTimeline(agent=agent)
    waiting = Span(phase=Phase.QUEUED, start=released, end=end)
    return AgentTimeline(agent=agent, spans=(waiting,))


def _tries(
    history: RunHistory, counts: Callable[[Attempt], bool] = lambda _: True
) -> dict[str, list[Interval]]:
    """Return the periods of each agent's attempts, or only of the attempts that count."""
    now = history.run.finished_at or history.now
    return _by_agent(
        (attempt.agent, (attempt.started_at, attempt.finished_at or now))
        for attempt in history.attempts
        if counts(attempt)
    )


def _long_waits(history: RunHistory) -> dict[str, list[Interval]]:
    """Return the periods in which each agent was handed back, until its next attempt."""
    starts: dict[str, list[datetime]] = defaultdict(list)
    for attempt in history.attempts:
        starts[attempt.name].append(attempt.started_at)
    found: dict[str, list[Interval]] = defaultdict(list)
    for event in history.events:
        if event.type == "agent_waiting" and event.agent is not None:
            following = starts.get(event.name or event.agent, [])
            place = bisect_right(following, event.at)
            now = history.run.finished_at or history.now
            ended = following[place] if place < len(following) else now
            found[event.agent].append((event.at, ended))
    return found


def _between(history: RunHistory) -> dict[str, list[Interval]]:
    """Return the periods between two attempts of the same agent run."""
    by_run: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in history.attempts:
        by_run[attempt.name].append(attempt)
    return _by_agent(
        (after.agent, (before.finished_at, after.started_at))
        for attempts in by_run.values()
        for before, after in pairwise(attempts)
        if before.finished_at is not None and before.finished_at < after.started_at
    )


def _busy(history: RunHistory) -> dict[str, list[Interval]]:
    """Return the periods in which each agent called or worked."""
    calls = (
        (call.agent, (call.ended_at - timedelta(seconds=call.seconds), call.ended_at))
        for call in history.calls
        if call.seconds is not None and call.kind not in ("correction", "cached")
    )
    tools = (
        (tool.agent, (tool.started_at, tool.finished_at or history.now))
        for tool in history.tools
        if tool.finished_at is not None or tool.state == "running"
    )
    under_way = (
        (standing.agent, (standing.calling_since, history.now))
        for standing in history.standing
        if standing.calling_since is not None
    )
    now = history.run.finished_at or history.now
    working = (
        (attempt.agent, (attempt.started_at, attempt.finished_at or now))
        for attempt in history.attempts
        if attempt.provider in WORKING_QUEUES and not attempt.is_container
    )
    return _by_agent(chain(calls, tools, under_way, working))


def _by_agent(found: Iterable[tuple[str, Interval]]) -> dict[str, list[Interval]]:
    intervals: dict[str, list[Interval]] = defaultdict(list)
    for agent, interval in found:
        intervals[agent].append(interval)
    return intervals


def _spans(
    *,
    start: datetime,
    end: datetime,
    busy: Iterable[Interval],
    tries: Sequence[Interval],
    lost: Iterable[Interval],
    waits: Iterable[Interval],
    between: Iterable[Interval] | None,
) -> tuple[Span, ...]:
    """Divide the time of an agent into phases without gaps; the first fitting phase counts.

    Without ``between``, all time after the first attempt is between attempts, or in an attempt.
    """
    phases = [
        (phase, _union(intervals, start, end))
        for phase, intervals in (
            (Phase.CALLING, busy),
            (Phase.LOST, lost),
            (Phase.HELD, [*tries, *waits]),
            (Phase.AWAY, between or ()),
        )
    ]
    edges = {edge for _, found in phases for interval in found for edge in interval}
    spans: list[Span] = []
    otherwise = Phase.QUEUED
    for left, right in pairwise(sorted({start, end, *edges})):
        phase = next((phase for phase, found in phases if _within(found, left, right)), otherwise)
        if phase is not Phase.QUEUED and between is None:
            otherwise = Phase.AWAY
        if spans and spans[-1].phase is phase:
            spans[-1] = Span(phase=phase, start=spans[-1].start, end=right)
        else:
            spans.append(Span(phase=phase, start=left, end=right))
    return tuple(spans)


def _within(intervals: Sequence[Interval], left: datetime, right: datetime) -> bool:
    """Return whether one of several disjoint intervals, in order, contains a period."""
    place = bisect_right(intervals, left, key=lambda interval: interval[0])
    return place > 0 and right <= intervals[place - 1][1]


def _union(intervals: Iterable[Interval], start: datetime, end: datetime) -> list[Interval]:
    """Merge overlapping intervals and clip them to bounds."""
    merged: list[Interval] = []
    for first, last in sorted((max(first, start), min(last, end)) for first, last in intervals):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        elif first < last:
            merged.append((first, last))
    return merged


def _critical_path(history: RunHistory, agents: Sequence[AgentTimeline]) -> tuple[Step, ...]:
    started = (each for each in agents if each.spans)
    levels = groupby(started, key=lambda each: each.agent.level)
    path = [max(level, key=lambda each: each.spans[-1].end) for _, level in levels]
    return tuple(
        Step(
            timeline=each,
            is_dependency=after is None
            or each.agent.name in history.dependencies.get(after.agent.name, ()),
        )
        for each, after in zip_longest(path, path[1:])
    )


def _pauses(history: RunHistory, end: datetime) -> tuple[Interval, ...]:
    found: list[Interval] = []
    since: datetime | None = None
    for event in history.events:
        if event.type == "run_paused":
            since = event.at
        elif since is not None and event.type in ("run_resumed", "run_stopped", "run_cancelled"):
            found.append((since, event.at))
            since = None
    return (*found, (since, end)) if since is not None and since < end else tuple(found)

"""The timeline of a run: the waits and calls of each agent, and the critical path.

The agents of a level start at the same time. Therefore a level waits for the last agent of the
previous level, even if no agent of the level depends on that last agent. The critical path is the
chain of these last agents. This path is measured, not planned.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain, groupby, pairwise, zip_longest

from app.domain.kinds import QUEUES_OF_KINDS, WORKFLOW, queue_of
from app.monitoring.progress import AgentProgress
from app.monitoring.run_history import RunHistory

Interval = tuple[datetime, datetime]
#: Queues of agents that have no calls in the ledger; the whole attempts of these agents are work.
WORKING_QUEUES = frozenset((*QUEUES_OF_KINDS.values(), queue_of(WORKFLOW)))


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
    run = history.run
    end = run.finished_at or history.now
    busy, tries, away = _busy(history), _tries(history), _long_waits(history)
    lost = _tries(history, outcome="lost")
    started = {name: min(first for first, _ in times) for name, times in tries.items()}
    released = _released(history, started)
    agents = tuple(
        AgentTimeline(
            agent=agent,
            spans=_spans(
                start=min(released[agent.level] or started[agent.name], started[agent.name]),
                end=_end(agent, tries[agent.name], end),
                busy=busy.get(agent.name, []),
                tries=tries[agent.name],
                lost=lost.get(agent.name, []),
                away=away.get(agent.name, []),
            ),
        )
        if agent.name in started
        else _unstarted(agent, released[agent.level], end)
        for agent in run.agents
    )
    return Timeline(
        start=run.started_at or run.created_at,
        end=end,
        agents=agents,
        critical_path=_critical_path(history, agents),
        pauses=_pauses(history, end),
    )


def _released(history: RunHistory, started: Mapping[str, datetime]) -> list[datetime | None]:
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


def _tries(history: RunHistory, *, outcome: str | None = None) -> dict[str, list[Interval]]:
    """Return the periods of each agent's attempts, or only of attempts with this ``outcome``."""
    now = history.run.finished_at or history.now
    return _by_agent(
        (attempt.agent, (attempt.started_at, attempt.finished_at or now))
        for attempt in history.attempts
        if outcome in (None, attempt.outcome)
    )


def _long_waits(history: RunHistory) -> dict[str, list[Interval]]:
    """Return the periods in which each agent was handed back, until its next attempt."""
    found: dict[str, list[Interval]] = {}
    for event in history.events:
        if event.type == "agent_waiting" and event.agent is not None:
            following = (
                attempt.started_at
                for attempt in history.attempts
                if attempt.agent == event.agent and attempt.started_at > event.at
            )
            ended = min(following, default=history.run.finished_at or history.now)
            found.setdefault(event.agent, []).append((event.at, ended))
    return found


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
    working = {
        agent.name
        for agent in history.run.agents
        if agent.provider in WORKING_QUEUES or agent.sub_run_id is not None
    }
    tries = {name: times for name, times in _tries(history).items() if name in working}
    return _by_agent(chain(calls, tools, under_way)) | tries


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
    away: Iterable[Interval],
) -> tuple[Span, ...]:
    """Divide the time of an agent into phases without gaps; the first fitting phase counts."""
    phases = [
        (phase, _union(intervals, start, end))
        for phase, intervals in (
            (Phase.CALLING, busy),
            (Phase.LOST, lost),
            (Phase.HELD, [*tries, *away]),
        )
    ]
    edges = {edge for _, found in phases for interval in found for edge in interval}
    spans: list[Span] = []
    otherwise = Phase.QUEUED
    for left, right in pairwise(sorted({start, end, *edges})):
        phase = next((phase for phase, found in phases if _within(found, left, right)), otherwise)
        if phase is not Phase.QUEUED:
            otherwise = Phase.AWAY
        if spans and spans[-1].phase is phase:
            spans[-1] = Span(phase=phase, start=spans[-1].start, end=right)
        else:
            spans.append(Span(phase=phase, start=left, end=right))
    return tuple(spans)


def _within(intervals: Iterable[Interval], left: datetime, right: datetime) -> bool:
    return any(first <= left and right <= last for first, last in intervals)


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

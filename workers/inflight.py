"""The leases of this process, one for each agent run, and the ways to stop an agent run."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from app.storage.claims import ClaimedAgent
from app.storage.leases import Renewed

#: A commit of fewer than ENOUGH records waits COMMIT_DELAY_S seconds for more records, if at least
#: SIBLINGS other agents are in progress.
COMMIT_DELAY_S, ENOUGH, SIBLINGS = 0.005, 8, 8


class Phase(StrEnum):
    """The current step of an agent run."""

    WAITING = "waiting"  # for a limit or for money; a stop loses nothing
    CALLING = "calling"  # a request is under way, or a tool runs
    RECORDING = "recording"  # the agent has ended; a stop would only lose the result


class StopReason(StrEnum):
    """The reason for which an agent run is stopped from outside."""

    RUN_STOPPED = "run_stopped"
    RUN_PAUSED = "run_paused"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"


class LeaseGone(Exception):
    """The attempt has lost its lease, or the run is being stopped, so no call may start."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(kw_only=True, eq=False)
class Lease:
    """One agent run in progress in this process."""

    id: UUID
    attempt: int
    task: asyncio.Task[object]
    phase: Phase = Phase.WAITING
    stopped: StopReason | None = None

    def enter(self, phase: Phase) -> None:
        """Note the step that the agent run begins now."""
        self.phase = phase

    def stop(self, reason: StopReason) -> None:
        """Cancel the coroutine once, unless the agent run is already recording its result."""
        if self.stopped is None and self.phase is not Phase.RECORDING:
            self.stopped = reason
            self.task.cancel()


@dataclass(kw_only=True)
class InFlight:
    """The leases of this process. Only the loop changes them; the heartbeat's thread reads copies.

    Its weakness: a stop only cancels the coroutine of the agent. Code in a thread, such as the code
    of a function agent, continues; the result of this code is dropped.

    Example:
        with inflight.lease(claimed) as lease:
            lease.enter(Phase.CALLING)
            ...
            lease.enter(Phase.RECORDING)
    """

    _draining: asyncio.Event = field(default_factory=asyncio.Event)
    _leases: dict[UUID, Lease] = field(default_factory=dict)

    @property
    def draining(self) -> bool:
        """Whether this process takes no more work."""
        return self._draining.is_set()

    async def sleep(self, seconds: float, *, unless: asyncio.Event) -> None:
        """Sleep until the seconds are over, this process drains, or the event is set."""
        ends = [asyncio.create_task(event.wait()) for event in (self._draining, unless)]
        await asyncio.wait(ends, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    @contextlib.contextmanager
    def lease(self, claimed: ClaimedAgent) -> Iterator[Lease]:
        """Let the heartbeat renew an agent run's lease while the current task runs this block."""
        task = asyncio.current_task()
        assert task is not None
        lease = Lease(id=claimed.id, attempt=claimed.attempt, task=task)
        self._leases[claimed.id] = lease
        try:
            yield lease
        finally:
            if self._leases.get(claimed.id) is lease:
                del self._leases[claimed.id]

    def held(self) -> dict[UUID, int]:
        """Return the attempts by agent run; another thread may call this method."""
        return {lease.id: lease.attempt for lease in list(self._leases.values())}

    def renewed(self, asked: Mapping[UUID, int], answer: Mapping[UUID, Renewed]) -> None:
        """Act on a heartbeat's answer: stop the attempts that lost their lease or have to end.

        If a run is paused, only its waiting agents are handed back. Calls in flight go on,
        because they cost money in any case.

        Args:
            asked: The attempts that the heartbeat has sent, by agent run.
            answer: The renewed leases by agent run.
        """
        for id_, attempt in asked.items():
            lease = self._leases.get(id_)
            if lease is None or lease.attempt != attempt:
                continue
            renewed = answer.get(id_)
            if renewed is None:
                lease.stop(StopReason.LEASE_LOST)
            elif renewed.stopping:
                lease.stop(StopReason.RUN_STOPPED)
            elif renewed.paused and lease.phase is Phase.WAITING:
                lease.stop(StopReason.RUN_PAUSED)

    def drain(self, *, calls_too: bool = False) -> None:
        """Stop the agents that wait; with ``calls_too``, also stop the agents that make a call."""
        self._draining.set()
        for lease in list(self._leases.values()):
            if calls_too or lease.phase is Phase.WAITING:
                lease.stop(StopReason.DRAINED)

    def commit_delay_s(self, records: int) -> float:
        """Return the seconds for which records wait for other records, to share a commit.

        A run goes on after its record. If the records of several runs are committed together, these
        runs go on at the same time, and share the commits of their next steps, too.
        """
        others = len(self._leases) - records
        return COMMIT_DELAY_S if records < ENOUGH and others >= SIBLINGS else 0.0

    def __len__(self) -> int:
        return len(self._leases)

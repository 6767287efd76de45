"""The agent runs that this process has a lease on, and how each of them is stopped."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from app.storage.claims import ClaimedAgent
from app.storage.leases import Renewed

#: Seconds that fewer than ENOUGH records wait for more, if SIBLINGS other agents may end meanwhile.
COMMIT_DELAY_S, ENOUGH, SIBLINGS = 0.005, 8, 8


class Phase(StrEnum):
    """The step that an agent run is at."""

    WAITING = "waiting"  # for a limit or for money: nothing is lost by stopping it
    CALLING = "calling"  # a request is out, or a tool runs
    RECORDING = "recording"  # it has ended: stopping it would only lose the result


class StopReason(StrEnum):
    """Why an agent run is stopped from outside."""

    RUN_STOPPED = "run_stopped"
    RUN_PAUSED = "run_paused"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"


class LeaseGone(Exception):
    """The attempt has lost its lease, or its run is being stopped: no call may start."""

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
        """Note what the agent run is doing from now on."""
        self.phase = phase

    def stop(self, reason: StopReason) -> None:
        """Cancel the coroutine, once, unless it is already recording its result."""
        if self.stopped is None and self.phase is not Phase.RECORDING:
            self.stopped = reason
            self.task.cancel()


@dataclass(kw_only=True)
class InFlight:
    """The leases of this process. Only the loop changes it; the heartbeat's thread reads copies.

    Its weakness: an agent is stopped by cancelling its coroutine. Code in a thread, such as a
    function agent's, runs on; its result is dropped.

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
        """Have the heartbeat renew an agent run's lease while the current task works on it."""
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
        """Return the attempts by agent run; safe to call from another thread."""
        return {lease.id: lease.attempt for lease in list(self._leases.values())}

    def renewed(self, asked: Mapping[UUID, int], answer: Mapping[UUID, Renewed]) -> None:
        """Act on a heartbeat's answer: stop the attempts that lost their lease or are to end.

        Of a paused run only the agents that wait are handed back: a call in flight is paid for, so
        it may end.

        Args:
            asked: Attempt by agent run, as the heartbeat sent them.
            answer: The leases that were renewed.
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
        """Stop the agents that wait, and with ``calls_too`` those that call, too."""
        self._draining.set()
        for lease in list(self._leases.values()):
            if calls_too or lease.phase is Phase.WAITING:
                lease.stop(StopReason.DRAINED)

    def commit_delay_s(self, records: int) -> float:
        """Return the seconds that so many records wait for others to share their commit.

        A run's next steps follow its record, so runs whose records are committed together go on
        together, and share the commits of those steps, too.
        """
        others = len(self._leases) - records
        return COMMIT_DELAY_S if records < ENOUGH and others >= SIBLINGS else 0.0

    def __len__(self) -> int:
        return len(self._leases)

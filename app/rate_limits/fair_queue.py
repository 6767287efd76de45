"""The requests of this process that wait for one bucket, ordered by run and by priority.

The order among runs is start-time fair queueing (Goyal, Vin, Cheng 1996). Each run has a virtual
time that grows by cost / weight with every grant. The run with the least virtual time goes first.
The backend has the exact virtual times. This module has copies. The copies are good enough to
choose the requests that the module offers.
"""

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from app.rate_limits.base import LimitRequest, Permit, WaitingRequest, WaitingRun

#: Largest number of runs that are offered in one exchange. The other runs have already had a larger
#: share.
MOST_RUNS = 8


@dataclass(eq=False, kw_only=True, slots=True)
class Waiter:
    """One request that waits.

    Attributes:
        id: Number of the request, unique in the process and bucket; a later request has a larger
            number.
        request: The call.
        offer: The request in the form for the backend.
        future: The future that gets the permit.
        entered_s: Time since which the request waits, by the clock of ``time.monotonic()``.
        early: Whether the caller takes the permit before the start, and then itself waits for the
            start.
        max_wait_s: Seconds of waiting that the caller accepts; if the wait is known to be longer,
            the waiter is sent away.
        gone: Whether the waiter has left the queue.
        second_try: Whether the waiter has already lost one permit that came too late.
    """

    id: int
    request: LimitRequest
    offer: WaitingRequest
    future: asyncio.Future[Permit]
    entered_s: float
    early: bool = False
    max_wait_s: float = math.inf
    gone: bool = False
    second_try: bool = False


@dataclass(slots=True)
class _Run:
    weight: float
    share_s: float
    waiting: int = 0
    heap: list[tuple[int, int, Waiter]] = field(default_factory=list)


class FairQueue:
    """The waiters of a process for one bucket.

    Args:
        refresh: Updates the offer of a waiter before the waiter is offered.
    """

    def __init__(self, refresh: Callable[[Waiter], None]) -> None:
        self._refresh = refresh
        self._runs: dict[str, _Run] = {}
        self._offered: dict[int, Waiter] = {}
        self._share_s = 0.0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def enter(self, waiter: Waiter) -> bool:
        """Add a waiter; return whether the waiter is now the first of its run."""
        run = self._runs.get(waiter.request.run_id)
        if run is None:
            run = self._runs[waiter.request.run_id] = _Run(waiter.request.weight, self._share_s)
        run.weight = waiter.request.weight
        run.waiting += 1
        self._waiting += 1
        heapq.heappush(run.heap, (-waiter.request.priority, waiter.id, waiter))
        return run.heap[0][2] is waiter

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter that has its permit, or whose caller no longer waits."""
        if waiter.gone:
            return
        waiter.gone = True
        self._waiting -= 1
        run = self._runs[waiter.request.run_id]
        run.waiting -= 1
        if run.waiting == 0:
            del self._runs[waiter.request.run_id]

    def waiters(self) -> list[Waiter]:
        """Return all waiters, in no particular order."""
        queued = [waiter for run in self._runs.values() for _, _, waiter in run.heap]
        return [waiter for waiter in (*queued, *self._offered.values()) if not waiter.gone]

    def in_order(self) -> list[Waiter]:
        """Return the waiters that are not offered now, in the probable order of their permits."""
        in_order: list[tuple[float, int, Waiter]] = []
        for run in self._runs.values():
            share_s = run.share_s
            for _, number, waiter in sorted(run.heap):
                if not waiter.gone:
                    in_order.append((share_s, number, waiter))
                    share_s += waiter.offer.cost_s / run.weight
        return [waiter for _, _, waiter in sorted(in_order)]

    def offer(self, most: int) -> list[WaitingRun]:
        """Take out up to ``most`` of the first waiters, but always the first waiter of each run."""
        runs = dict(
            heapq.nsmallest(MOST_RUNS, self._runs.items(), key=lambda item: item[1].share_s)
            if len(self._runs) > MOST_RUNS
            else self._runs.items()
        )
        chosen: dict[str, list[WaitingRequest]] = {name: [] for name in runs}
        order = [(run.share_s, name) for name, run in runs.items()]
        heapq.heapify(order)
        while order and most > 0:
            share_s, name = heapq.heappop(order)
            waiter = self._pop(runs[name])
            if waiter is not None:
                chosen[name].append(waiter.offer)
                heapq.heappush(order, (share_s + waiter.offer.cost_s / runs[name].weight, name))
                most -= 1
        for _, name in order:
            if not chosen[name] and (waiter := self._pop(runs[name])) is not None:
                chosen[name].append(waiter.offer)
        return [
            WaitingRun(name, runs[name].weight, runs[name].waiting, requests)
            for name, requests in chosen.items()
            if requests
        ]

    def take(self, waiter_id: int) -> Waiter | None:
        """Remove and return the offered waiter with an id; None if no offered waiter has the id."""
        return self._offered.pop(waiter_id, None)

    def take_back(self) -> None:
        """Put back into the queue the waiters that were offered but got no permit."""
        for waiter in self._offered.values():
            if not waiter.gone:
                run = self._runs[waiter.request.run_id]
                heapq.heappush(run.heap, (-waiter.request.priority, waiter.id, waiter))
        self._offered.clear()

    def set_shares(self, names: Iterable[str], shares: list[float]) -> None:
        """Copy the backend's virtual times of these runs; the last number is the bucket's time."""
        for name, share_s in zip(names, shares[:-1], strict=True):
            if name in self._runs:
                self._runs[name].share_s = share_s
        self._share_s = shares[-1]

    def _pop(self, run: _Run) -> Waiter | None:
        while run.heap:
            waiter = heapq.heappop(run.heap)[2]
            if not waiter.gone:
                self._offered[waiter.id] = waiter
                self._refresh(waiter)
                return waiter
        return None

"""The requests of this process that wait for one bucket: runs share by weight, then by priority.

The order among runs is start-time fair queueing (Goyal, Vin, Cheng 1996): each run has a virtual
time that grows by cost / weight with every grant, and the least goes first. The true virtual times
are the backend's; the copies here are good enough to choose what to offer.
"""

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from app.rate_limits.base import LimitRequest, Permit, WaitingRequest, WaitingRun

#: Runs that are offered at once; the others have had more.
MOST_RUNS = 8


@dataclass(eq=False, kw_only=True, slots=True)
class Waiter:
    """One request that waits.

    Attributes:
        id: Unique in the process and bucket; grows with the arrival.
        request: The call.
        offer: The request as the backend hears of it.
        future: Gets the permit.
        entered_s: Since when it waits, as ``time.monotonic()``.
        early: Whether the caller takes the permit before the start, and waits for that itself.
        max_wait_s: It is sent away if it is known that it has to wait longer.
        gone: Whether it is out of the queue.
        second_try: Whether one permit came too late for it already.
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
        refresh: Called with a waiter that is about to be offered, to bring its offer up to date.
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
        """Add a waiter; return whether it is now the first of its run."""
        run = self._runs.get(waiter.request.run_id)
        if run is None:
            run = self._runs[waiter.request.run_id] = _Run(waiter.request.weight, self._share_s)
        run.weight = waiter.request.weight
        run.waiting += 1
        self._waiting += 1
        heapq.heappush(run.heap, (-waiter.request.priority, waiter.id, waiter))
        return run.heap[0][2] is waiter

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter whose caller gave up, or that was granted its permit."""
        if waiter.gone:
            return
        waiter.gone = True
        self._waiting -= 1
        run = self._runs[waiter.request.run_id]
        run.waiting -= 1
        if run.waiting == 0:
            del self._runs[waiter.request.run_id]

    def waiters(self) -> list[Waiter]:
        """Return all of them, in no particular order."""
        queued = [waiter for run in self._runs.values() for _, _, waiter in run.heap]
        return [waiter for waiter in (*queued, *self._offered.values()) if not waiter.gone]

    def in_order(self) -> list[Waiter]:
        """Return those that are not being offered, in the probable order of their permits."""
        in_order: list[tuple[float, int, Waiter]] = []
        for run in self._runs.values():
            share_s = run.share_s
            for _, number, waiter in sorted(run.heap):
                if not waiter.gone:
                    in_order.append((share_s, number, waiter))
                    share_s += waiter.offer.cost_s / run.weight
        return [waiter for _, _, waiter in sorted(in_order)]

    def offer(self, most: int) -> list[WaitingRun]:
        """Take out the first waiters, at most ``most``, and always the first of each run."""
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
        """Return the offered waiter that was granted; None if it is not known any more."""
        return self._offered.pop(waiter_id, None)

    def take_back(self) -> None:
        """Put the waiters that were offered and not granted back into their places."""
        for waiter in self._offered.values():
            if not waiter.gone:
                run = self._runs[waiter.request.run_id]
                heapq.heappush(run.heap, (-waiter.request.priority, waiter.id, waiter))
        self._offered.clear()

    def set_shares(self, names: Iterable[str], shares: list[float]) -> None:
        """Copy the backend's virtual times: of these runs in order, and last the bucket's own."""
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

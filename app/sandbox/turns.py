"""Decides which run may use a sandbox process next, so that no run holds up the others.

The order is start-time fair queueing (Goyal, Vin, Cheng 1996), as among the calls that wait for a
limit. It is applied twice: first among tenants, then among the runs of a tenant.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Hashable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple


class Turn(NamedTuple):
    """The run for which a task is done, and the tenant of the run."""

    tenant: str | None
    run: Hashable


#: The turn of the run whose tool is being called. The functions of tools have no argument for it.
current_turn: ContextVar[Turn | None] = ContextVar("current_turn", default=None)


@dataclass(eq=False, slots=True)
class _Waiter:
    turn: Turn
    number: int
    future: asyncio.Future[None]


@dataclass(slots=True)
class _Shares:
    """Virtual times: the seconds that each sharer has used, and the time of the last start."""

    used_s: dict[Hashable, float] = field(default_factory=dict)
    now_s: float = 0.0

    def of(self, sharer: Hashable) -> float:
        return max(self.used_s.get(sharer, 0.0), self.now_s)

    def start(self, sharer: Hashable, worst_s: float) -> None:
        self.now_s = self.of(sharer)
        self.used_s[sharer] = self.now_s + worst_s
        # A sharer that has used no more than a newcomer is a newcomer.
        self.used_s = {key: used for key, used in self.used_s.items() if used > self.now_s}

    def give_back(self, sharer: Hashable, unused_s: float) -> None:
        if sharer in self.used_s:
            self.used_s[sharer] -= unused_s


class Turns:
    """A number of places that runs use in turn.

    A run never has all places, unless there is only one place. Therefore a newcomer usually finds a
    free place, even if tasks of another run take all the time that they may take.

    Args:
        places: Number of places.
        worst_s: Seconds that a task may take. A task counts as this long until it has ended.
    """

    def __init__(self, places: int, *, worst_s: float) -> None:
        self._free = places
        self._most_of_a_run = max(places - 1, 1)
        self._worst_s = worst_s
        self._waiting: dict[Turn, deque[_Waiter]] = {}
        self._number = 0
        self._busy: Counter[Turn] = Counter()
        self._tenants = _Shares()
        self._runs = _Shares()

    async def take(self, turn: Turn) -> None:
        """Wait for a place; each place that was taken has to be given back."""
        future = asyncio.get_running_loop().create_future()
        self._number += 1
        waiter = _Waiter(turn, self._number, future)
        self._waiting.setdefault(turn, deque()).append(waiter)
        self._grant()
        try:
            await future
        except asyncio.CancelledError:
            if waiter in self._waiting.get(turn, ()):
                self._leave(waiter)
            elif not future.cancelled():
                self.give_back(turn, used_s=0.0)
            raise

    def give_back(self, turn: Turn, *, used_s: float) -> None:
        """Give back a place that was in use for some seconds."""
        self._free += 1
        self._busy[turn] -= 1
        if not self._busy[turn]:
            del self._busy[turn]
        unused_s = self._worst_s - used_s
        self._tenants.give_back(turn.tenant, unused_s)
        self._runs.give_back(turn, unused_s)
        self._grant()

    def _grant(self) -> None:
        while self._free and (waiter := self._next()):
            self._leave(waiter)
            if waiter.future.done():
                continue
            self._free -= 1
            self._busy[waiter.turn] += 1
            self._tenants.start(waiter.turn.tenant, self._worst_s)
            self._runs.start(waiter.turn, self._worst_s)
            waiter.future.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        waiting = self._waiting[waiter.turn]
        waiting.remove(waiter)
        if not waiting:
            del self._waiting[waiter.turn]

    def _next(self) -> _Waiter | None:
        # Only the first of each run is looked at, so that many waiters of a run cost no more.
        ready: Iterable[_Waiter] = (
            waiting[0]
            for turn, waiting in self._waiting.items()
            if self._busy[turn] < self._most_of_a_run or waiting[0].future.done()
        )
        return min(ready, key=self._order, default=None)

    def _order(self, waiter: _Waiter) -> tuple[float, float, int]:
        turn = waiter.turn
        return self._tenants.of(turn.tenant), self._runs.of(turn), waiter.number

"""The holds of money for calls. A hold is placed at once, or as soon as the money is free.

A settlement that frees money wakes the waiting holds, in the order of the queue in Postgres. A
waiting hold also tries again by itself, in case the signal was lost.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from app.domain.money import HoldAnswer, HoldOutcome, HoldRequest, dollars
from app.domain.waits import LongWait
from app.errors import BudgetExceeded
from app.events.signals import Signals
from app.storage.group_commit import GroupCommit
from workers.background import Background
from workers.inflight import LeaseGone, StopReason

LOOK_AGAIN_S = 1.0
COME_BACK_S = 15.0

Holds = GroupCommit[HoldRequest, HoldAnswer]


class HoldTicket:
    """One hold, in one of three states: not requested yet, in the queue, or placed.

    Its weakness: a waiting hold sends a query to Postgres about once a second. The alternative is
    to rely on the signal alone, but then an agent whose signal is lost would wait for ever.

    Args:
        agent: Name of the agent, for messages.
        request: The amount of the hold, and the accounts.
        holds: Places the hold.
        signals: Says that money is free.

    Attributes:
        placed: Whether the hold is placed. A placed hold must be settled, whatever happens.

    Example:
        ticket = money.ticket("writer", request)
        if not await ticket.place():
            await ticket.wait(max_wait_s=60.0)
    """

    def __init__(self, agent: str, request: HoldRequest, holds: Holds, signals: Signals) -> None:
        self._agent = agent
        self._request = request
        self._holds = holds
        self._signals = signals
        self._short_of = ""
        self.placed = False

    @property
    def waits_for(self) -> str:
        """The description of the account that has too little money for the hold now."""
        return f"money of the {self._short_of}" if self._short_of else "money"

    async def place(self) -> bool:
        """Try to place the hold, and wait for the result even if the caller is cancelled.

        Returns:
            Whether the hold is placed; if not, the hold is in the queue.

        Raises:
            BudgetExceeded: If the hold can never fit.
            LeaseGone: If the attempt must stop.
        """
        if self.placed:
            return True
        future = asyncio.ensure_future(self._holds.submit(self._request))
        try:
            answer = await asyncio.shield(future)
        except asyncio.CancelledError:
            self.placed = (await future).outcome is HoldOutcome.PLACED
            raise
        match answer.outcome:
            case HoldOutcome.PLACED:
                self.placed = True
            case HoldOutcome.CLOSED:
                raise LeaseGone(StopReason.RUN_STOPPED)
            case HoldOutcome.PAUSED:
                raise LeaseGone(StopReason.RUN_PAUSED)
            case HoldOutcome.FENCED:
                raise LeaseGone(StopReason.LEASE_LOST)
            case HoldOutcome.EXCEEDED:
                raise self._exceeded(answer)
            case HoldOutcome.WAIT if answer.account is not None:
                self._short_of = answer.account.label
        return self.placed

    async def wait(self, *, max_wait_s: float = math.inf) -> None:
        """Wait until the hold is placed; raise the same errors as ``place``.

        Raises:
            LongWait: If the hold is not placed after ``max_wait_s``; the hold keeps its place in
                the queue.
        """
        started_s = time.monotonic()
        async with self._signals.watching(self._request.agent_run_id) as news:
            # A signal that was sent before this coroutine listened is lost, so try at once.
            while not await self.place():
                if time.monotonic() - started_s > max_wait_s:
                    # A settlement wakes the agent earlier, unless the signal is lost.
                    back_in_s = COME_BACK_S * random.uniform(0.75, 1.25)
                    raise LongWait(wait_s=back_in_s, waits_for=self.waits_for)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), LOOK_AGAIN_S * random.uniform(0.75, 1.25))
                news.clear()

    def _exceeded(self, answer: HoldAnswer) -> BudgetExceeded:
        account = answer.account
        assert account is not None, "a refusal names the account that decided it"
        return BudgetExceeded(
            f"agent {self._agent!r}: the {account.label} is {dollars(account.limit_usd)}, "
            f"{dollars(account.spent_usd)} are spent, and the next call may cost "
            f"{dollars(self._request.amount_usd)}: raise the limit, or lower max_tokens"
        )


class Money:
    """Places the holds of all jobs of a process.

    Args:
        holds: Group commit of holds.
        signals: Says that money is free.

    Example:
        ticket = Money(holds, signals).ticket("writer", request)
        placed = await ticket.place()
    """

    def __init__(self, holds: Holds, signals: Signals) -> None:
        self._holds = holds
        self._signals = signals

    def ticket(self, agent: str, request: HoldRequest) -> HoldTicket:
        """Return the ticket of a hold that is not requested yet."""
        return HoldTicket(agent, request, self._holds, self._signals)


class BudgetWaiters:
    """Sends a signal to all agents that wait for money, in any process. The agents then try again.

    Args:
        signals: Sends the signals.
        wake_deferred: Wakes the deferred agents, which were handed back until a later time.
        background: Runs steps that no agent waits for.
    """

    def __init__(
        self,
        signals: Signals,
        wake_deferred: Callable[[Sequence[UUID]], Awaitable[None]],
        background: Background,
    ) -> None:
        self._signals = signals
        self._wake_deferred = wake_deferred
        self._background = background

    def __call__(self, agent_run_ids: Sequence[UUID]) -> None:
        """Send the signals in the background."""
        if agent_run_ids:
            self._background.start(self._send(agent_run_ids), name="budget_waiters")

    async def _send(self, agent_run_ids: Sequence[UUID]) -> None:
        for id_ in agent_run_ids:
            await self._signals.send(id_, "money")
        await self._wake_deferred(agent_run_ids)

"""Money for calls: held at once, or when its turn comes.

Who waits is woken by whoever sets money free for him, in the order of the queue in Postgres; he
also looks again by himself, in case the word was lost.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.domain.money import HoldAnswer, HoldOutcome, HoldRequest, dollars
from app.domain.waits import LongWait
from app.errors import BudgetExceeded
from app.events.signals import Signals
from app.storage.group_commit import GroupCommit
from workers.inflight import LeaseGone, StopReason

LOOK_AGAIN_S = 1.0
COME_BACK_S = 15.0


@dataclass(kw_only=True, slots=True)
class HoldTicket:
    """A call's ticket for money.

    Attributes:
        agent: Name of who wants it, for messages.
        request: What is to be held.
        placed: Whether it is held; then it must be settled, whatever happens.
        short_of: The account that has too little for it now.
    """

    agent: str
    request: HoldRequest
    placed: bool = False
    short_of: str = ""

    @property
    def waits_for(self) -> str:
        """What it waits for, in words."""
        return f"money of the {self.short_of}" if self.short_of else "money"


class Money:
    """Places the holds of all jobs of a process.

    Args:
        holds: Group commit of holds.
        signals: Brings the word that money is free.
    """

    def __init__(self, holds: GroupCommit[HoldRequest, HoldAnswer], signals: Signals) -> None:
        self._holds = holds
        self._signals = signals

    async def hold(self, ticket: HoldTicket) -> bool:
        """Try to place a hold, to the end: one that is placed must be known.

        Returns:
            Whether it is placed; if not, it has a place in the queue.

        Raises:
            BudgetExceeded: If it can never fit.
            LeaseGone: If the job may not go on.
        """
        future = asyncio.ensure_future(self._holds.submit(ticket.request))
        try:
            answer = await asyncio.shield(future)
        except asyncio.CancelledError:
            ticket.placed = (await future).outcome is HoldOutcome.PLACED
            raise
        match answer.outcome:
            case HoldOutcome.PLACED:
                ticket.placed = True
            case HoldOutcome.CLOSED:
                raise LeaseGone(StopReason.RUN_STOPPED)
            case HoldOutcome.PAUSED:
                raise LeaseGone(StopReason.RUN_PAUSED)
            case HoldOutcome.FENCED:
                raise LeaseGone(StopReason.LEASE_LOST)
            case HoldOutcome.EXCEEDED:
                raise _exceeded(ticket, answer)
            case HoldOutcome.WAIT if answer.account is not None:
                ticket.short_of = answer.account.label
        return ticket.placed

    async def wait(self, ticket: HoldTicket, *, max_wait_s: float = math.inf) -> None:
        """Wait until the hold is placed; raises as ``hold`` does.

        Raises:
            LongWait: If it has not been placed after ``max_wait_s``; its place in the queue stays.
        """
        started_s = time.monotonic()
        async with self._signals.watching(ticket.request.agent_run_id) as news:
            # What has become free before anybody listened was said to nobody.
            while not await self.hold(ticket):
                if time.monotonic() - started_s > max_wait_s:
                    # Whoever settles enough calls him back; this is for the case that he does not.
                    back_in_s = COME_BACK_S * random.uniform(0.75, 1.25)
                    raise LongWait(wait_s=back_in_s, waits_for=ticket.waits_for)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), LOOK_AGAIN_S * random.uniform(0.75, 1.25))
                news.clear()


class BudgetWaiters:
    """Tells agents that wait for money, in whatever process, to try again.

    Args:
        signals: Carries the word.
        wake_deferred: Lets those of them come back who have given their places back.
    """

    def __init__(
        self, signals: Signals, wake_deferred: Callable[[Sequence[UUID]], Awaitable[None]]
    ) -> None:
        self._signals = signals
        self._wake_deferred = wake_deferred
        self._sending: set[asyncio.Task[None]] = set()

    def __call__(self, agent_run_ids: Sequence[UUID]) -> None:
        """Send the word; returns at once."""
        if agent_run_ids:
            task = asyncio.create_task(self._send(agent_run_ids), name="budget_waiters")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, agent_run_ids: Sequence[UUID]) -> None:
        for id_ in agent_run_ids:
            await self._signals.send(id_, "money")
        await self._wake_deferred(agent_run_ids)


def _exceeded(ticket: HoldTicket, answer: HoldAnswer) -> BudgetExceeded:
    account = answer.account
    assert account is not None, "a refusal names the account that decided it"
    return BudgetExceeded(
        f"agent {ticket.agent!r}: the {account.label} is {dollars(account.limit_usd)}, "
        f"{dollars(account.spent_usd)} are spent, and the next call may cost "
        f"{dollars(ticket.request.amount_usd)}: raise the limit, or lower max_tokens"
    )

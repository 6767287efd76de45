"""The callback of transactions that set money free."""

from collections.abc import Callable, Sequence
from uuid import UUID

#: Called inside the transaction with the agent runs whose holds should be tried again. They find
#: the budgets locked until it has committed, so an early call costs nothing.
WakeWaiters = Callable[[Sequence[UUID]], None]


def wake_none(_: Sequence[UUID]) -> None:
    """Wake no agent: those that wait look again by themselves, a little later."""

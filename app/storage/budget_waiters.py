"""Whom a transaction tells that money has become free."""

from collections.abc import Callable, Sequence
from uuid import UUID

#: Called inside the transaction with the agent runs whose holds should be tried again. They find
#: the budgets locked until it has committed, so being told early costs nothing.
WakeWaiters = Callable[[Sequence[UUID]], None]


def nobody(_: Sequence[UUID]) -> None:
    """WakeWaiters nobody: those who wait look again by themselves, a little later."""

"""The callback for transactions that release money."""

from collections.abc import Callable, Sequence
from uuid import UUID

#: Called inside the transaction. The argument is the agent runs that should try their holds again.
#: The budgets are locked until the transaction has committed, so a new try cannot come too early.
WakeWaiters = Callable[[Sequence[UUID]], None]


def wake_none(_: Sequence[UUID]) -> None:
    """Wake no agent run; an agent run that waits tries again by itself a little later."""

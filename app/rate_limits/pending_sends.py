"""Calls that are granted and not sent yet: the backend must know whether they are late.

A provider counts a request when it arrives. Usually that is a few milliseconds after its start; a
new connection or a busy processor can make it a hundred, and by then a provider's bucket may hold
more than the calls behind it may count on.
"""

import asyncio
import math
import time
from collections.abc import Iterable

from app.rate_limits.base import Permit
from app.rate_limits.tiers import BucketSpec

#: From a start until the request is on its way it takes so long at first, and at most; the mean
#: follows by this share of each. Paced calls wait for their moment on an open connection: any delay
#: is one, as the next call may be another process's, which does not share the mean.
_USUAL_S, _LONGEST_S, _MEAN_SHARE = 0.002, 0.006, 0.1
#: A call that is this late may never be sent: other calls do not wait for it any longer.
_LOST_S = 5.0
#: Timers are that coarse; the rest of a wait is spent in turns of the loop.
_TIMER_S = 0.001


class PendingSends:
    """The calls of one bucket in this process that have not been sent.

    Args:
        spec: The bucket's limits; calls that were granted under others do not count.

    Attributes:
        reported: Whether the last exchange reported overdue calls.
    """

    def __init__(self, spec: BucketSpec) -> None:
        self.reported = False
        self._spec = spec
        self._calls: dict[int, Permit] = {}
        self._last_s = -math.inf
        self._mean_s = _USUAL_S

    def __contains__(self, permit: Permit) -> bool:
        return permit.request_id in self._calls

    def expect(self, permit: Permit) -> float:
        """Add a call that is granted; return the seconds after which it is late."""
        self._calls[permit.request_id] = permit
        lead_s = permit.starts_at_s - time.monotonic()
        return lead_s + self._usual_s + self._spec.on_time_s

    def forget(self, permit: Permit) -> None:
        """Remove a call that will not be made, or has ended."""
        self._calls.pop(permit.request_id, None)

    async def moment_of(self, permit: Permit) -> None:
        """Wait until a call may be sent: a paced one not close behind another that was late."""
        while (lead_s := self._free_at_s(permit) - time.monotonic()) > 0:  # noqa: ASYNC110 a clock
            await asyncio.sleep(lead_s - _TIMER_S if lead_s > 2 * _TIMER_S else 0)

    def mark_sent(
        self, permit: Permit, *, measured: bool
    ) -> tuple[float, tuple[float, ...]] | None:
        """Remove a call that is sent.

        Args:
            permit: Its permit.
            measured: Whether this is the moment at which it is sent; else it is the one at which it
                may be sent, and the moment itself will not be known.

        Returns:
            If it is late, when it was sent by the backend's clock, and the amounts of all calls
            that had not been sent until then.
        """
        now_s = time.monotonic()
        late_s = now_s - permit.starts_at_s
        if measured:
            self._last_s = now_s
            delay_s, late_s = late_s, late_s - self._usual_s
            self._mean_s += _MEAN_SHARE * (min(delay_s, _LONGEST_S) - self._mean_s)
        del self._calls[permit.request_id]
        if late_s <= self._spec.on_time_s or permit.spec is not self._spec:
            return None
        return permit.granted_at + late_s, _sum([permit, *self._waiting()])

    def overdue(self) -> tuple[float, ...]:
        """Return the amounts of all calls that are not sent, if one of them is late; else ()."""
        due_s = time.monotonic() - self._usual_s - self._spec.on_time_s
        calls = self._waiting()
        amounts = _sum(calls) if any(permit.starts_at_s < due_s for permit in calls) else ()
        self.reported = bool(amounts)
        return amounts

    def reconfigure(self, spec: BucketSpec) -> None:
        """Take other limits into use."""
        self._spec = spec

    @property
    def _usual_s(self) -> float:
        return 0.0 if self._spec.paced else self._mean_s

    def _free_at_s(self, permit: Permit) -> float:
        return max(permit.starts_at_s, self._last_s + self._spec.interval_s)

    def _waiting(self) -> list[Permit]:
        lost_s = time.monotonic() - _LOST_S
        return [
            permit
            for permit in self._calls.values()
            if permit.starts_at_s > lost_s and permit.spec is self._spec
        ]


def _sum(permits: Iterable[Permit]) -> tuple[float, ...]:
    taken = (permit.taken for permit in permits)
    return tuple(sum(amounts) for amounts in zip(*taken, strict=True))

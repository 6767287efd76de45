"""Calls that are granted but not sent yet; the backend must know whether such calls are late.

A provider counts a request when the request arrives, usually a few milliseconds after its start. A
new connection or a busy processor can delay the arrival by a hundred milliseconds. The provider's
bucket may then be full for some time and lose refill. Later calls must not use this lost refill.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable

from app.rate_limits.base import Permit
from app.rate_limits.tiers import BucketSpec

#: The usual time between the start of a call and the sending of its request is a running mean. The
#: mean begins at ``_USUAL_S``, counts no delay above ``_LONGEST_S``, and moves towards each new
#: delay by ``_MEAN_SHARE`` of the difference. The mean does not apply to paced calls
#: (``BucketSpec.paced``). Paced calls wait for their start on an open connection. Every delay of a
#: paced call counts, because another process with another mean may make the next call.
_USUAL_S, _LONGEST_S, _MEAN_SHARE = 0.002, 0.006, 0.1
#: A call that is later than this will perhaps never be sent, so other calls no longer wait for it.
_LOST_S = 5.0
#: Timers may be wrong by this many seconds, so the last part of a wait is spent in iterations of
#: the event loop.
_TIMER_S = 0.001


class PendingSends:
    """The calls of one bucket in this process that have not been sent.

    Args:
        spec: The bucket's limits; a call that was granted under other limits does not count.

    Attributes:
        reported: Whether the last exchange reported overdue calls.
    """

    def __init__(self, spec: BucketSpec) -> None:
        self.reported = False
        self._spec = spec
        self._calls: dict[int, Permit] = {}
        self._last_s = -math.inf
        # Paced calls are sent in the order in which they ask. Without this order, calls that are
        # late would wait for ever, because the calls that are on time use every gap.
        self._turn = asyncio.Lock()
        self._mean_s = _USUAL_S

    def __contains__(self, permit: Permit) -> bool:
        return permit.request_id in self._calls

    def expect(self, permit: Permit) -> float:
        """Add a call that is granted; return the seconds after which the call is late."""
        self._calls[permit.request_id] = permit
        lead_s = permit.starts_at_s - time.monotonic()
        return lead_s + self._usual_s + self._spec.on_time_s

    def forget(self, permit: Permit) -> None:
        """Remove a call that has ended, or that will not be made."""
        self._calls.pop(permit.request_id, None)

    async def moment_of(self, permit: Permit) -> None:
        """Wait until a call may be sent; a paced call also keeps a distance to the last call."""
        async with self._turn if self._spec.paced else contextlib.nullcontext():
            await self._wait_for(permit)

    async def _wait_for(self, permit: Permit) -> None:
        while (lead_s := self._free_at_s(permit) - time.monotonic()) > 0:  # noqa: ASYNC110 a clock
            await asyncio.sleep(lead_s - _TIMER_S if lead_s > 2 * _TIMER_S else 0)

    def mark_sent(
        self, permit: Permit, *, measured: bool
    ) -> tuple[float, tuple[float, ...]] | None:
        """Remove a call that is sent.

        Args:
            permit: The call's permit.
            measured: Whether the call is sent at this moment; otherwise the call may be sent from
                now on, and nothing will report the moment of sending.

        Returns:
            None if the call is not late. Otherwise the moment of sending on the backend's clock,
            and the amounts of all calls that had not been sent before that time.
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
        """Return the amounts of all calls that are not sent yet; empty if no call is late."""
        due_s = time.monotonic() - self._usual_s - self._spec.on_time_s
        calls = self._waiting()
        amounts = _sum(calls) if any(permit.starts_at_s < due_s for permit in calls) else ()
        self.reported = bool(amounts)
        return amounts

    def reconfigure(self, spec: BucketSpec) -> None:
        """Use other limits from now on."""
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

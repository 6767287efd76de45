"""CPU and memory of processes, from outside: what the kernel has booked on them."""

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import psutil

from tests.waiting import wait_until

Roles = Mapping[str, Sequence[psutil.Process]]
SAMPLE_S = 0.02
REST_S = 0.3
#: Share of one core that a stack without work may use.
RESTING_SHARE = 0.1
MB = 1_000_000


def cpu_s(root: psutil.Process) -> float:
    """CPU seconds, user and system, of a process and all its descendants.

    The living are asked one by one. A child that has ended is in its parent's account as soon as
    the parent has noticed, so that a Postgres backend that comes and goes is counted all the same.
    """
    total = 0.0
    for process in (*root.children(recursive=True), root):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def cpu_by_role(roles: Roles) -> dict[str, float]:
    """CPU seconds so far, by role."""
    return {role: sum(map(cpu_s, processes)) for role, processes in roles.items()}


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def resident_mb(processes: Sequence[psutil.Process]) -> float:
    """Memory of the processes; what they share is counted in each."""
    return sum(process.memory_info().rss for process in processes) / MB


def wait_for_rest(roles: Roles) -> None:
    """Wait until what goes on after the last answer is over, such as events on their way."""
    processes = [process for group in roles.values() for process in group]
    seen = [time.monotonic(), sum(map(cpu_s, processes))]

    def resting() -> bool:
        passed_s = time.monotonic() - seen[0]
        if passed_s < REST_S:
            return False
        used_s = sum(map(cpu_s, processes)) - seen[1]
        seen[:] = time.monotonic(), seen[1] + used_s
        return used_s < RESTING_SHARE * passed_s

    wait_until(resting, timeout_s=20, what="the stack to come to rest")


class Observation:
    """What processes use for the length of a ``with`` block.

    Args:
        roles: Processes whose CPU is looked at.
        watched: Processes whose memory is looked at.

    Attributes:
        cpu_s: CPU seconds by role.
        others_share: Part of the machine that was busy meanwhile with something else.
        peak_mb: Most memory that the watched had together at one moment.
    """

    def __init__(self, roles: Roles, watched: Sequence[psutil.Process]) -> None:
        self.cpu_s: dict[str, float] = {}
        self.others_share = 0.0
        self.peak_mb = 0.0
        self._roles = roles
        self._watched = watched
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._cpu_before_s = cpu_by_role(self._roles)
        self._clocks_before_s = _clocks_s()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        wall_s, machine_s, own_s = (
            after - before for after, before in zip(_clocks_s(), self._clocks_before_s, strict=True)
        )
        self.cpu_s = {
            role: after - self._cpu_before_s[role]
            for role, after in cpu_by_role(self._roles).items()
        }
        others_s = machine_s - own_s - sum(self.cpu_s.values())
        self.others_share = max(others_s, 0.0) / (wall_s * cores())

    def _watch(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, resident_mb(self._watched))
            if self._done.wait(SAMPLE_S):
                return


def _clocks_s() -> tuple[float, float, float]:
    """Seconds that have passed, that the machine was busy, and that this process was."""
    return time.monotonic(), _machine_s(), time.process_time()


def _machine_s() -> float:
    times = psutil.cpu_times()
    waiting = times.idle + getattr(times, "iowait", 0.0)
    # A guest's time is in its host's user time already.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times)) - waiting - guests

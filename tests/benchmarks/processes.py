"""CPU and memory of processes, from the kernel's accounts."""

import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import psutil

from tests.support.waiting import wait_until

Roles = Mapping[str, Sequence[psutil.Process]]
#: Seconds between two readings of the memory: each takes some ms of the kernel's time per process.
SAMPLE_S = 0.5
REST_S = 0.3
#: Prefect writes records for half a minute after the work.
REST_TIMEOUT_S = 120.0
#: Share of one core that a stack without work may use.
RESTING_SHARE = 0.1
MB = 1_000_000


def cpu_by_role(roles: Roles) -> dict[str, float]:
    """CPU seconds so far, user and system, of processes and their descendants, by role.

    Living processes are read one by one. A child that has ended is in its parent's account as soon
    as the parent has reaped it, so that short-lived Postgres backends are counted as well. A
    process with a role of its own counts only there.
    """
    named = {process.pid for group in roles.values() for process in group}
    return {
        role: sum(_cpu_s(process) for root in group for process in _tree(root, named))
        for role, group in roles.items()
    }


def with_descendants(roles: Roles) -> list[psutil.Process]:
    """All processes of all roles, and their descendants, each once."""
    found = (one for group in roles.values() for root in group for one in _tree(root, set()))
    return list({process.pid: process for process in found}.values())


def _tree(root: psutil.Process, named: Collection[int]) -> Iterator[psutil.Process]:
    """A process and its descendants, without other named ones and their descendants."""
    yield root
    apart: set[int] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in root.children(recursive=True):  # parents come before their children
            if process.pid in named or process.ppid() in apart:
                apart.add(process.pid)
            else:
                yield process


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def resident_mb(processes: Sequence[psutil.Process]) -> float:
    """Memory of the processes; shared memory is counted in each."""
    return sum(map(_resident_bytes, processes)) / MB


def shares_mb(processes: Sequence[psutil.Process]) -> float:
    """Memory of the processes together; each page of shared memory is counted once.

    Where the kernel does not say how many processes share a page (macOS), only unshared memory
    counts.
    """
    return sum(map(_share_bytes, processes)) / MB


def _share_bytes(process: psutil.Process) -> int:
    try:
        found = process.memory_full_info()
    except psutil.NoSuchProcess:
        return 0
    return int(getattr(found, "pss", found.uss))


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def wait_for_rest(roles: Roles) -> None:
    """Wait until the work after the last answer is over, such as events under way."""
    seen = [time.monotonic(), sum(cpu_by_role(roles).values())]

    def resting() -> bool:
        passed_s = time.monotonic() - seen[0]
        if passed_s < REST_S:
            return False
        used_s = sum(cpu_by_role(roles).values()) - seen[1]
        seen[:] = time.monotonic(), seen[1] + used_s
        return used_s < RESTING_SHARE * passed_s

    wait_until(resting, timeout_s=REST_TIMEOUT_S, what="the contender to come to rest")


class Observation:
    """Measures processes for the length of a ``with`` block.

    Args:
        roles: Processes whose CPU is measured.
        watched: Processes whose memory is measured.

    Attributes:
        cpu_s: CPU seconds by role.
        others_share: Share of the machine that other processes used meanwhile.
        peak_mb: Most memory of the watched processes together at one moment, as in ``shares_mb``.
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
            done = self._done.wait(SAMPLE_S)
            self.peak_mb = max(self.peak_mb, shares_mb(self._watched))
            if done:
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

"""The memory of a stack's processes, by what they are for."""

import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import psutil

MB = 1_000_000
#: What stands in the command lines of processes that the ready line does not name.
MARKS = {
    "app.local_stack.forking": "fork server",
    "embedded/keeper.py": "keepers",
    "redis": "Redis",
    "postgres": "Postgres",
}


def memory_by_kind(up: psutil.Process, pids: Mapping[str, int]) -> dict[str, float]:
    """MB of the processes of a stack, of their own and their shares of what they share (PSS).

    Args:
        up: The process of ``agentchord up``.
        pids: The process ids in its ready line.
    """
    kinds = {pid: re.sub(r"\d+$", "s", name) for name, pid in pids.items()} | {up.pid: "up"}
    found: defaultdict[str, float] = defaultdict(float)
    for process in (up, *up.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            kind = kinds.get(process.pid) or _kind_of(process)
            found[kind] += process.memory_full_info().pss / MB
    return found


def _kind_of(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((kind for mark, kind in MARKS.items() if mark in line), line)

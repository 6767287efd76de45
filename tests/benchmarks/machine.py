"""Facts of the machine that the figures depend on."""

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from redis import Redis

from app.embedded import ServiceUrls
from tests.benchmarks.processes import cores
from tests.support.embedded_home import connect

FSYNCS = 50


def describe(folder: Path, urls: ServiceUrls) -> dict[str, str]:
    """Cores, versions, and the least cost of a commit to this disk."""
    with connect(urls) as postgres, Redis.from_url(urls.redis_url) as redis:
        row = postgres.execute("SHOW server_version").fetchone()
        redis_version = redis.info("server")["redis_version"]
    assert row is not None
    return {
        "cores": str(cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "postgres": str(row[0]).split()[0],
        "redis": str(redis_version),
        "fsync_ms": f"{_fsync_ms(folder):.2f}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _fsync_ms(folder: Path) -> float:
    """Median of writing one page and waiting until it is on the disk."""
    times_ms = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(FSYNCS):
            started_s = time.perf_counter()
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
            times_ms.append((time.perf_counter() - started_s) * 1000)
    return median(times_ms)

"""Simulations by hand: ``python -m tests.simulation --seeds 1000``, or ``--seed 17`` to see one."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.embedded import Services
from app.storage.schema import upgrade
from tests.simulation.database import Database
from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import Report, simulate
from tests.support.databases import clone

JOBS = 2


def main() -> int:
    """Run the simulations that the command line asks for; return 1 if a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and show its last steps")
    parser.add_argument("--seeds", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"processes (default {JOBS})")
    parser.add_argument("--mutation", choices=MUTATIONS, help="break the protocol in this way")
    given = parser.parse_args()
    seeds = (
        [given.seed] if given.seed is not None else range(given.first, given.first + given.seeds)
    )
    jobs = min(given.jobs, len(seeds))
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Services(Path(folder)) as urls:
        upgrade(urls.database_url)
        server = make_url(urls.database_url)
        databases = [
            clone(server, str(server.database), f"simulation_{job}") for job in range(jobs)
        ]
        shares = [seeds[job::jobs] for job in range(jobs)]
        with ProcessPoolExecutor(jobs) as pool:
            work = partial(_simulate, mutation=given.mutation)
            reports = [r for share in pool.map(work, databases, shares) for r in share]
    broken = [report for report in reports if report.broken]
    for report in reports if given.seed is not None else broken:
        sys.stdout.write(f"{report}\n\n")
    waits = sum(report.lock_waits for report in reports)
    calls = sum(report.calls for report in reports)
    took_s = time.monotonic() - started_s
    sys.stdout.write(
        f"{len(seeds)} simulations, {len(broken)} broken, {calls:,} calls, {waits:,} waits for a "
        f"lock, {sum(report.seconds for report in reports):,.0f} virtual s in {took_s:.0f} s\n"
    )
    return int(bool(broken))


def _simulate(url: str, seeds: Sequence[int], *, mutation: str | None) -> list[Report]:
    database = Database(url)
    try:
        with pytest.MonkeyPatch.context() as patch:
            if mutation is not None:
                MUTATIONS[mutation][0](patch)
            return [simulate(database, seed) for seed in seeds]
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())

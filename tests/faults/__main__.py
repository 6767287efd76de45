"""`python -m tests.faults`: every fault in full size, random mixes, and the table of the docs."""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.benchmarks.machine import describe
from tests.faults.case import Result, mix, run_case
from tests.faults.cluster import RECOVERIES, RECOVERIES_OF_MIXES, Cluster, run_cluster
from tests.faults.injections import Fault, possible_faults
from tests.faults.scenario import FULL, SHORT
from tests.faults.table import faults_table
from tests.support.markdown import write_into
from tests.support.stack import client_of
from tests.support.terminal import say

ROUNDS = 2
MIXES = 20
JOBS = 2
MARK = "faults: written by `make faults`"


Case = tuple[str, Sequence[Fault], int]


def main(options: argparse.Namespace) -> int:
    """Run every case, print the table, and write it if the options ask for it.

    Returns:
        Number of failed cases; a case is never repeated because it failed.
    """
    with tempfile.TemporaryDirectory(prefix="agentchord-faults-") as folder:
        run = partial(_run_share, options, Path(folder))
        with ProcessPoolExecutor(options.jobs) as pool:
            shares = list(pool.map(run, range(options.jobs)))
    order = [name for name, _, _ in _cases(options)]
    results = [result for share in shares for result in share.results]
    results.sort(key=lambda result: order.index(result.name))
    failed = sum(share.failed for share in shares)
    facts = shares[0].machine
    text = (
        f"{facts['date']}, {facts['cores']} cores, Python {facts['python']}, Postgres "
        f"{facts['postgres']}, Redis {facts['redis']}; {options.jobs} clusters side by side."
        f"\n\n{faults_table(results)}"
    )
    sys.stdout.write(text + "\n")
    if failed:
        say(f"{failed} cases failed")
    elif options.markdown:
        write_into(options.markdown, text, mark=MARK)
    return failed


def _cases(options: argparse.Namespace) -> list[Case]:
    chosen = [
        fault
        for fault in possible_faults()
        if not options.only or any(o in fault.name for o in options.only)
    ]
    single: list[Case] = [
        (fault.name, [fault], number) for fault in chosen for number in range(options.rounds)
    ]
    return single + [("random mixes", mix(seed), seed) for seed in range(options.mixes)]


@dataclass(kw_only=True)
class _Share:
    """Results of one of several processes with its share of the cases."""

    machine: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    failed: int = 0


def _run_share(options: argparse.Namespace, folder: Path, job: int) -> _Share:
    scale = SHORT if options.short else FULL
    share = _Share()
    cases = _cases(options)[job :: options.jobs]
    for number in count():
        # A failed case may leave anything behind, so the next one begins on a new cluster.
        place = folder / f"{job}-{number}"
        place.mkdir()
        with (
            run_cluster(place, scale) as cluster,
            pytest.MonkeyPatch.context() as patch,
            client_of(cluster.stack, patch),
        ):
            share.machine = describe(folder, cluster.stack.urls)
            while cases:
                name, faults, seed = cases.pop(0)
                result = _run(cluster, name, faults, seed)
                if result is None:
                    share.failed += 1
                    break
                share.results.append(result)
        if not cases:
            break
    return share


def _run(cluster: Cluster, name: str, faults: Sequence[Fault], seed: int) -> Result | None:
    what = " + ".join(fault.name for fault in faults)
    began_s = time.monotonic()
    try:
        cluster.allow(max_recoveries=RECOVERIES_OF_MIXES if len(faults) > 1 else RECOVERIES)
        result = run_case(cluster, *faults, name=name, seed=seed)
    except Exception:  # noqa: BLE001  whatever it is, the other cases are run
        say(f"FAILED {name} {seed} ({what})\n{traceback.format_exc()}")
        return None
    say(f"{time.monotonic() - began_s:6.1f} s  {what} {seed}: {result}")
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="A run of 200 agents meets every fault, and random mixes of them. The table "
        "goes to standard output, progress to standard error.",
    )
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="faults whose name has this")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="cases of each fault")
    parser.add_argument("--mixes", type=int, default=MIXES, help="random mixes")
    parser.add_argument("--jobs", type=int, default=JOBS, help="clusters side by side")
    parser.add_argument("--short", action="store_true", help="in the size of `make test`")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="put the table into this file, in place of the one that is there, if nothing failed",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(min(main(_arguments()), 1))

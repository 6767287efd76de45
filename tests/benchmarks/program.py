"""How each benchmark runs as a program: how long it took, or why it failed, on standard error."""

import argparse
import sys
import time
from collections.abc import Callable

from tests.benchmarks.contenders import BenchmarkFailed
from tests.support.terminal import say


def run(main: Callable[[argparse.Namespace], object], options: argparse.Namespace) -> None:
    """Run a benchmark; the process ends with 1 if it fails."""
    began_s = time.monotonic()
    try:
        main(options)
    except BenchmarkFailed as failure:
        say(f"the benchmark failed: {failure}")
        sys.exit(1)
    say(f"took {time.monotonic() - began_s:.0f} s")

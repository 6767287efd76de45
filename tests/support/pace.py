"""How slow the machine is at the moment: time-outs of tests grow with this factor.

A time-out of a test is a ceiling against hanging: no test waits longer because its ceiling is
higher. So a test states the seconds that are plenty on a machine of the reference, and ``scaled``
makes them last on a slower one, and beside other work.

A bound that is the subject of a test is no ceiling. Such a test measures counts or CPU time. Where
only the clock on the wall tells, it compares with ``at_this_pace``, a reference that is measured in
the same test, and what it forbids takes many times as long.
"""

import subprocess
import sys
import time

#: Wall seconds of the fixed work on the reference, two cores without other work.
REFERENCE_S = 0.1
#: Other work may begin after the measurement.
LEAST, MOST = 2.0, 10.0
_WORK = 1_000_000
_BARE_PYTHON = (sys.executable, "-I", "-S", "-c", "pass")


class Pace:
    """The factor of this machine, measured when it is first asked for, and again on demand."""

    def __init__(self) -> None:
        self._factor = 0.0

    @property
    def factor(self) -> float:
        """How many times longer than on the reference a wait may take, between 2 and 10."""
        return self._factor or self.measure()

    def measure(self) -> float:
        """Measure once more, and return the largest factor that was ever measured."""
        measured = LEAST * _slowness()
        self._factor = max(self._factor, min(max(measured, LEAST), MOST))
        return self._factor


def _slowness() -> float:
    """Return how many times longer than on the reference a fixed work takes now."""
    started_s = time.perf_counter()
    sum(number * number for number in range(_WORK))
    subprocess.run(_BARE_PYTHON, check=True)
    return (time.perf_counter() - started_s) / REFERENCE_S


PACE = Pace()


def scaled(seconds: float) -> float:
    """Return the seconds that a wait may last on this machine, at the moment.

    Args:
        seconds: What is plenty on the reference.
    """
    return seconds * PACE.factor


def at_this_pace(seconds: float) -> float:
    """Return the seconds that something may take at the moment, measured now.

    Args:
        seconds: What is enough on the reference.
    """
    return seconds * min(max(_slowness(), 1.0), MOST)

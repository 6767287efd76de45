"""Progress messages of the programs among the tests; the results go to another stream."""

import sys


def say(text: str) -> None:
    """Write a line to standard error, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

"""What the programs among the tests say while they work: results on one stream, progress here."""

import sys


def say(text: str) -> None:
    """Write a line to standard error, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

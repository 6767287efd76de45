"""Messages to the user that are not the answer of a command: lines on standard error."""

import sys


def say(text: str) -> None:
    """Print one line on standard error at once."""
    print(f"agentchord: {text}", file=sys.stderr, flush=True)

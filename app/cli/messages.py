"""Lines for the user, in which text from outside is always plain text.

No other module of the command line calls ``print``, so that no text reaches a terminal with the
characters that control the terminal.
"""

import sys
from typing import TextIO

from app.domain.plain_text import shown


def say(text: str) -> None:
    """Print a message that is not the answer of a command: one line on standard error, at once."""
    tell(f"agentchord: {text}", file=sys.stderr)


def tell(text: str = "", *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print a text at once, by default on standard output."""
    print(shown(text), end=end, file=file or sys.stdout, flush=True)

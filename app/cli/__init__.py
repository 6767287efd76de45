"""The `agentchord` command."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from app.cli.application import execute
from app.cli.messages import say

CANNOT_PRINT = 1


def main() -> NoReturn:
    """Run the command line of this process; the installed script calls this function."""
    code = execute(sys.argv[1:]) if _can_print() else CANNOT_PRINT
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
    except OSError as error:
        _forget_output()
        say(f"the output cannot be written: {error.strerror}")
        code = code or CANNOT_PRINT
    sys.exit(code)


def _can_print() -> bool:
    """Return whether there is a standard output; if there is no standard error, replace it.

    A closed descriptor is opened again, because otherwise a connection to Postgres or a file could
    get its number, and a message of a child process would go there.
    """
    missing = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            missing.append(number)
            os.open(os.devnull, os.O_RDWR)
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  until the process ends
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    if 1 in missing:
        say("the standard output is closed: redirect it, for example to a file or to /dev/null")
    return 1 not in missing


def _forget_output() -> None:
    """Send the rest of the output nowhere, because Python writes it once more at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

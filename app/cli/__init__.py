"""The `agentchord` command.

Importing it costs next to nothing, and so does ``agentchord --help``: a command imports what it
needs when it runs.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Entry point of the installed script."""
    from app.cli.application import execute

    sys.exit(execute(sys.argv[1:]))

"""The `agentchord` command."""

import sys
from typing import NoReturn

from app.cli.application import execute


def main() -> NoReturn:
    """Run the command line of this process; the installed script calls this function."""
    sys.exit(execute(sys.argv[1:]))

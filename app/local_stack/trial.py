"""Imports modules in a process of its own, and prints one line if this is not possible.

The reloader runs ``python -m app.local_stack.trial MODULES...`` before it restarts the workers.
"""

import sys
from collections.abc import Sequence

from app.errors import ConfigurationError
from app.tools.registry import ToolRegistry


def main(modules: Sequence[str]) -> int:
    """Import the modules as a worker does; return 1 after a mistake, whose text is printed."""
    try:
        ToolRegistry(modules).load()
    except ConfigurationError as error:
        print(" ".join(str(error).split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

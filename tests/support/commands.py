"""`agentchord` in a separate process, as a client of a test's stack."""

import json
import subprocess
from typing import Any

from tests.support.stack import Stack


def cli(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return stack.python("-m", "app.cli", *words)


def answer(stack: Stack, *words: str) -> Any:
    """Return the value that a command prints with --json."""
    done = cli(stack, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

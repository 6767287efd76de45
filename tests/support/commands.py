"""`agentchord` in a process of its own, against the stack of a test."""

import json
import subprocess
from typing import Any

from tests.support.stack import Stack


def cli(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return stack.python("-m", "app.cli", *words)


def answer(stack: Stack, *words: str) -> Any:
    """What a command prints with --json."""
    done = cli(stack, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

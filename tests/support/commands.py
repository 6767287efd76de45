"""`agentchord` as a client of a test's stack: in a separate process, or in this process."""

import contextlib
import io
import json
import logging
import subprocess
from typing import Any

from app.cli import application
from tests.support.stack import Stack


def cli(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return stack.command(*words)


def answer(stack: Stack, *words: str) -> Any:
    """Return the value that a command prints with --json."""
    done = cli(stack, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def execute(*words: str) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, its output and its errors."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = application.execute(words)
    root.handlers, root.level = handlers, level
    return code, out.getvalue(), errors.getvalue()


def printed(*words: str) -> str:
    """Return the output of a command that succeeds in this process."""
    code, out, errors = execute(*words)
    assert code == 0, errors
    return out

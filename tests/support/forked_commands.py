"""`agentchord` in a process of its own that does not import the commands again.

The imports of a command take more CPU than its work. So a fork server imports all commands once,
and each command runs in a fork of the server: a process with its own folder, environment, output
and exit code. What a process imports by itself is the subject of tests that start Python.
"""

import atexit
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from multiprocessing import forkserver, get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PRELOADED = "tests.support.imported_commands"
ROOT = Path(__file__).parents[2]


def run_command(
    *words: str, cwd: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `agentchord` with these words to its end.

    Args:
        *words: The arguments of the command line.
        cwd: The folder in which the command runs; its modules can be imported.
        environment: All environment variables of the command.
        timeout_s: Seconds until the command is killed.

    Raises:
        subprocess.TimeoutExpired: If the command had to be killed.
    """
    _start_server()
    with TemporaryDirectory() as folder:
        out, errors = Path(folder) / "out", Path(folder) / "errors"
        process = get_context("forkserver").Process(
            target=_command, args=(words, cwd, dict(environment), out, errors)
        )
        process.start()
        process.join(timeout_s)
        if late := process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        texts = [file.read_text("utf-8") if file.exists() else "" for file in (out, errors)]
    if late or code is None:
        raise subprocess.TimeoutExpired(["agentchord", *words], timeout_s, *texts)
    return subprocess.CompletedProcess(["agentchord", *words], code, *texts)


@cache
def _start_server() -> None:
    """Start the server once a process of tests; the server ends with that process."""
    get_context("forkserver").set_forkserver_preload([PRELOADED])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()


def _command(
    words: tuple[str, ...], cwd: Path, environment: dict[str, str], out: Path, errors: Path
) -> None:
    """Be `python -m app.cli` in this process, which is a fork of the server."""
    for file, number in ((out, 1), (errors, 2)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    own = {str(ROOT), *paths}
    sys.path[:] = [str(cwd), *paths, *(place for place in sys.path if place not in own)]
    sys.argv = ["agentchord", *words]
    from app.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()

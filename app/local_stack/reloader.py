"""Restarts the workers of a stack when the Python files that they load have changed."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.local_stack.process_output import Output
from app.local_stack.supervisor import Supervisor
from app.tools.sources import own_folders, source_files

POLL_S = 0.5
TRIAL_S = 60.0
#: The time and the size of each file; None if there is no such file.
Stamps = dict[Path, tuple[int, int] | None]


class Reloader:
    """Looks at the files twice a second, and restarts one worker after another.

    A worker finishes its calls before it ends, as at every end. Before the restart, another process
    imports the modules. If this fails, such as after a syntax error, the workers keep their code.

    The files are polled, because a few files cost nothing, and because a worker does not import a
    library that it does not need.

    Its weakness: a file that a module reads by other ways than ``import`` is not watched.

    Args:
        supervisor: Keeps the workers running.
        workers: Names of the workers.
        imports: Names of the modules with tools and functions, which must be importable.
        modules: Names of all modules that the workers load; their files are watched.
        environment: Environment of the workers.
        output: Prints the lines for the user.

    Example:
        task = asyncio.create_task(reloader.run())
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        workers: Sequence[str],
        imports: Sequence[str],
        modules: Sequence[str],
        environment: Mapping[str, str],
        output: Output,
    ) -> None:
        self._supervisor = supervisor
        self._workers = workers
        self._imports = imports
        self._modules = modules
        self._environment = environment
        self._say = output.say
        self._files: set[Path] = set()

    async def run(self) -> None:
        """Watch the files until the task is cancelled."""
        self._find_files()
        seen = self._stamps()
        while True:
            await asyncio.sleep(POLL_S)
            now = self._stamps()
            if now == seen:
                continue
            await self._settled()
            names = _names_of([path for path in now if now[path] != seen.get(path)])
            self._find_files()
            # The files are read after this, so a later change is another change.
            seen = self._stamps()
            await self._reload(names)

    async def _reload(self, names: str) -> None:
        if problem := await self._problem():
            self._say(f"{names} changed; the workers keep the code that they have: {problem}")
            return
        self._say(f"{names} changed: restarting the workers")
        for worker in self._workers:
            await self._supervisor.restart(worker)
        self._say("the workers have the changed code")

    async def _settled(self) -> None:
        """Wait until the files stay as they are; an editor may write several files."""
        before = self._stamps()
        while True:
            await asyncio.sleep(POLL_S)
            now = self._stamps()
            if now == before:
                return
            before = now

    async def _problem(self) -> str:
        """Return why the modules cannot be imported; an empty string if they can."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.local_stack.trial", *self._imports),
            env=dict(self._environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), TRIAL_S)
        except TimeoutError:
            return f"the import of {', '.join(self._imports)} takes over {TRIAL_S:g} s"
        finally:
            if process.returncode is None:
                process.kill()
        if not process.returncode:
            return ""
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"their import ended with code {process.returncode}"

    def _find_files(self) -> None:
        # A file that is gone is still watched, because it may come back.
        self._files.update(source_files(self._modules, own_folders()))

    def _stamps(self) -> Stamps:
        return {path: _stamp(path) for path in sorted(self._files)}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _names_of(paths: Sequence[Path]) -> str:
    folder = Path.cwd()
    names = [
        str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        for path in paths
    ]
    return ", ".join(names) or "a file"

"""Starts, keeps and ends the sandbox processes of a process."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from app.domain.json_text import read_json, write_json
from app.errors import InvalidJson
from app.sandbox import program
from app.sandbox.turns import Turn, Turns

PLACES = 2
#: Longest task. A document needs several times its length in memory.
MAX_BYTES = 10_000_000
# The system limits the CPU time of a task. This limit also ends a process that gets no CPU time.
WALL_S = 60.0

Task = Literal["condition", "schema", "page"]
# An estimate, until the task has ended.
_TASK_S = 2.0


class SandboxLimit(Exception):
    """A task exceeded a limit of the sandbox.

    The caller catches this error, and raises an error that names the condition or the schema.
    """


class Sandbox:
    """Evaluates tasks in at most two processes, which stay open for the next tasks.

    A task costs about a millisecond. The first task of a process costs about 0.1 s, because the
    process has to start. The sandbox has a weakness: a task that has started is not interrupted for
    the task of another run. Therefore a task may wait until that task reaches its limit.

    Example:
        sandbox = Sandbox()
        kind, value = await sandbox.run("schema", {"schema": {}, "value": 1}, Turn(None, run_id))
    """

    def __init__(self) -> None:
        self._turns = Turns(PLACES, worst_s=_TASK_S)
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    async def run(self, task: Task, arguments: Any, turn: Turn) -> tuple[str, Any]:
        """Evaluate a task.

        Args:
            task: Name of the task; ``program`` describes the arguments and answers of each task.
            arguments: A JSON value.
            turn: The run for which the task is evaluated.

        Returns:
            Kind and value of the answer.

        Raises:
            SandboxLimit: If the task is too long, or takes too much time or memory.
        """
        document = await asyncio.to_thread(write_json, [task, arguments])
        if len(document) > MAX_BYTES:
            raise SandboxLimit(f"has {len(document):,} bytes to read, the limit is {MAX_BYTES:,}")
        await self._turns.take(turn)
        started_s = time.monotonic()
        process = self._idle.pop() if self._idle else _Process()
        self._busy.add(process)
        answer = asyncio.get_running_loop().run_in_executor(None, process.answer, document)
        answer.add_done_callback(lambda done: self._ended(process, done, turn, started_s))
        try:
            found = await asyncio.shield(answer)
        except asyncio.CancelledError:
            process.kill()
            raise
        except (OSError, ValueError) as error:  # no process can be started, or its pipes are closed
            raise SandboxLimit(f"cannot be evaluated by another process: {error}") from error
        if found is None:
            raise SandboxLimit(f"took over {program.CPU_S[task]} s of CPU time, or too much memory")
        kind, value = _read(found)
        if kind == "MEMORY":
            raise SandboxLimit("took too much memory")
        return kind, value

    def close(self) -> None:
        """End the processes; tasks that still run raise ``SandboxLimit``."""
        for process in self._busy:
            process.kill()
        while self._idle:
            self._idle.pop().end()

    def _ended(
        self, process: "_Process", done: asyncio.Future[bytes | None], turn: Turn, started_s: float
    ) -> None:
        self._busy.discard(process)
        has_answered = not done.cancelled() and done.exception() is None and done.result()
        if has_answered and process.is_open():
            self._idle.append(process)
        else:
            process.end()
        self._turns.give_back(turn, used_s=time.monotonic() - started_s)


def _read(answer: bytes) -> tuple[str, Any]:
    """Read an answer; its texts are those of libraries, which may quote odd values of users."""
    try:
        match read_json(answer):
            case [str(kind), value]:
                return kind, value
    except InvalidJson:
        pass
    raise SandboxLimit("has an answer that cannot be read")


class _Process:
    """One sandbox process; its methods block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self._has_ended = False
        self._lock = threading.Lock()

    def answer(self, document: bytes) -> bytes | None:
        """Return the answer to a document; None if the process exceeded a limit."""
        process = self._started()
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(WALL_S, self.kill)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(program.LENGTH.pack(len(document)))
                process.stdin.write(document)
                process.stdin.flush()
            header = process.stdout.read(program.HEADER.size)
            if len(header) < program.HEADER.size:
                return None
            length, self._has_ended = program.HEADER.unpack(header)
            answer = process.stdout.read(length)
            return answer if len(answer) == length else None
        finally:
            timer.cancel()

    def is_open(self) -> bool:
        """Return whether the process can take another task."""
        return not self._is_killed and not self._has_ended

    def kill(self) -> None:
        """Stop the process; this method may be called from any thread, and more than once."""
        with self._lock:
            self._is_killed = True
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """Stop the process and close its pipes; no thread may wait for an answer."""
        self.kill()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process.wait()

    def _started(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._process is None and not self._is_killed:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", str(Path(program.__file__))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={},
                )
            return None if self._is_killed else self._process

"""Starts, keeps and ends the sandbox processes of a process."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from app.domain.json_text import read_json, write_json
from app.errors import InvalidJson
from app.sandbox import program
from app.sandbox.turns import Turn, Turns

PLACES = 2
#: Places for queries. A query mostly waits for its database, so queries have places of their own.
QUERY_PLACES = 4
#: Longest task. A document needs several times its length in memory.
MAX_BYTES = 10_000_000
# The system limits the CPU time of a task. This limit also ends a process that gets no CPU time.
WALL_S = 60.0
#: Seconds that a process has to end by itself, such as to cancel its query, before it is killed.
STOP_S = 3.0

Task = Literal["condition", "schema", "page", "query"]
# An estimate, until the task has ended.
_TASK_S = 2.0


class SandboxLimit(Exception):
    """A task exceeded a limit of the sandbox.

    The caller catches this error, and raises an error that names the condition or the schema.
    """


class Sandbox:
    """Evaluates tasks in a few processes, which stay open for the next tasks.

    A task costs about a millisecond. The first task of a process costs about 0.1 s, because the
    process has to start. There are at most two processes, and at most four further processes for
    queries. The sandbox has a weakness: a task that has started is not interrupted for the task of
    another run. Therefore a task may wait until that task reaches its limit.

    Example:
        sandbox = Sandbox()
        kind, value = await sandbox.run("schema", {"schema": {}, "value": 1}, Turn(None, run_id))
    """

    def __init__(self) -> None:
        evaluations, queries = _Pool(PLACES), _Pool(QUERY_PLACES)
        self._pools: dict[Task, _Pool] = {
            "condition": evaluations,
            "schema": evaluations,
            "page": evaluations,
            "query": queries,
        }

    async def run(
        self,
        task: Task,
        arguments: Any,
        turn: Turn,
        *,
        wall_s: float = WALL_S,
        max_answer_bytes: int = MAX_BYTES,
    ) -> tuple[str, Any]:
        """Evaluate a task.

        Args:
            task: Name of the task; ``program`` describes the arguments and answers of each task.
            arguments: A JSON value.
            turn: The run for which the task is evaluated.
            wall_s: Seconds after which the process is stopped from outside.
            max_answer_bytes: Longest answer, as JSON in UTF-8, that is read.

        Returns:
            Kind and value of the answer.

        Raises:
            SandboxLimit: If the task is too long, or takes too much time or memory.
        """
        document = await asyncio.to_thread(write_json, [task, arguments])
        if len(document) > MAX_BYTES:
            raise SandboxLimit(f"has {len(document):,} bytes to read, the limit is {MAX_BYTES:,}")
        pool = self._pools[task]
        await pool.turns.take(turn)
        started_s = time.monotonic()
        process = pool.process()
        # The threads are the pool's own: a few tasks that take long would occupy the few threads of
        # the loop, which also resolve host names.
        answer = asyncio.get_running_loop().run_in_executor(
            pool.threads, process.work, document, wall_s, max_answer_bytes
        )
        answer.add_done_callback(lambda done: pool.ended(process, done, turn, started_s))
        try:
            found = await asyncio.shield(answer)
        except asyncio.CancelledError:
            process.stop()
            raise
        except (OSError, ValueError) as error:  # no process can be started, or its pipes are closed
            raise SandboxLimit(f"cannot be evaluated by another process: {error}") from error
        if found is None:
            most = (
                f"{program.CPU_S[task]} s of CPU time" if task in program.CPU_S else f"{wall_s:g} s"
            )
            raise SandboxLimit(f"took over {most}, or too much memory")
        kind, value = found
        if kind == "MEMORY":
            raise SandboxLimit("took too much memory")
        return kind, value

    def close(self) -> None:
        """End the processes; tasks that still run raise ``SandboxLimit``."""
        for pool in self._pools.values():
            pool.close()


class _Pool:
    """The processes for one sort of tasks."""

    def __init__(self, places: int) -> None:
        self.turns = Turns(places, worst_s=_TASK_S)
        self.threads = ThreadPoolExecutor(places, thread_name_prefix="sandbox")
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    def process(self) -> "_Process":
        """Return a process for the caller's task; the caller has a place."""
        process = self._open_process() or _Process()
        self._busy.add(process)
        return process

    def ended(
        self, process: "_Process", done: asyncio.Future[Any], turn: Turn, started_s: float
    ) -> None:
        """Take back a process and its place."""
        self._busy.discard(process)
        has_answered = not done.cancelled() and done.exception() is None
        if has_answered and process.is_open:
            self._idle.append(process)
        self.turns.give_back(turn, used_s=time.monotonic() - started_s)

    def close(self) -> None:
        for process in self._busy:
            process.stop()
        while self._idle:
            self._idle.pop().end()

    def _open_process(self) -> "_Process | None":
        while self._idle:
            process = self._idle.pop()
            if process.is_open:
                return process
            # A cancellation has stopped a process that had just answered.
            process.end()
        return None


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
    """One sandbox process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._killer: threading.Timer | None = None
        #: Whether the process can take another task.
        self.is_open = True
        self._lock = threading.Lock()

    def work(self, document: bytes, wall_s: float, max_answer_bytes: int) -> tuple[str, Any] | None:
        """Return the answer to a document; None if the process exceeded a limit.

        This method blocks. If the process cannot take another task, the process has ended and is
        reaped when the method returns.
        """
        has_answered = False
        try:
            answer = self._answer(document, wall_s, max_answer_bytes)
            found = None if answer is None else _read(answer)
            has_answered = found is not None
            return found
        finally:
            if not has_answered or not self.is_open:
                self.end()

    def stop(self) -> None:
        """Ask the process to end, and kill it if it does not; any thread may call this method."""
        with self._lock:
            self.is_open = False
            if self._process is not None and self._killer is None:
                self._process.terminate()
                self._killer = _timer(STOP_S, self._process.kill)

    def end(self) -> None:
        """End the process and close its pipes; no thread may wait for an answer."""
        with self._lock:
            self.is_open = False
        if self._process is None:
            return
        if self._killer is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()
        if self._killer is not None:
            self._killer.cancel()

    def _answer(self, document: bytes, wall_s: float, max_answer_bytes: int) -> bytes | None:
        process = self._started()
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        timer = _timer(wall_s, self.stop)
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(program.LENGTH.pack(len(document)))
                process.stdin.write(document)
                process.stdin.flush()
            header = process.stdout.read(program.HEADER.size)
            if len(header) < program.HEADER.size:
                return None
            length, ends = program.HEADER.unpack(header)
            with self._lock:
                self.is_open = self.is_open and not ends
            if length > max_answer_bytes:
                raise SandboxLimit(f"has an answer of over {max_answer_bytes:,} bytes")
            answer = process.stdout.read(length)
            return answer if len(answer) == length else None
        finally:
            timer.cancel()

    def _started(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._process is None and self.is_open:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", str(Path(program.__file__))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={},
                )
            return self._process if self.is_open else None


def _timer(seconds: float, function: Any) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer

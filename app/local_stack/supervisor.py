"""The supervisor, which keeps the processes of a stack running and ends the processes in order.

Every process is in a session of its own, so that Ctrl-C reaches only the supervisor. After Ctrl-C,
the supervisor asks each process to end, and asks only once. The supervisor has a socket to each
process. Over this socket, the process reports its readiness. If the socket is closed, the process
knows that the supervisor has ended.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from app.domain.counts import counted
from app.errors import AgentChordError
from app.local_stack.fork_server import ForkServer
from app.local_stack.forking import Order
from app.local_stack.process_output import Output
from app.local_stack.processes import Process, start

#: A process that ends sooner after it was ready has made a false start.
HEALTHY_AFTER_S = 5.0
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
#: The stack fails if a process dies this many times in a row without having been ready.
MAX_FALSE_STARTS = 3
#: Seconds after which a message names the processes that are not ready yet.
REMINDER_S = 15.0


class ProcessFailed(AgentChordError):
    """A process of the stack cannot be started; the message quotes the last line of the process."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A Celery process that the supervisor keeps running.

    Attributes:
        name: Name of the process in messages and in the log.
        arguments: Command line of ``celery``.
        without: Environment variables that the process does not get, because it needs no keys.
    """

    name: str
    arguments: tuple[str, ...]
    without: frozenset[str] = frozenset()


class Supervisor:
    """Starts processes, restarts processes that end, and stops all processes.

    Args:
        programs: The programs to run.
        environment: Environment of the processes.
        output: The object that receives the lines of the processes.
        grace_s: Seconds that processes get to end by themselves.
        server: The server from which the processes are forked. None spawns each process, which then
            imports everything itself.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        environment: Mapping[str, str],
        output: Output,
        grace_s: float,
        server: ForkServer | None = None,
    ) -> None:
        self._server = server
        self._programs = programs
        self._environment = dict(environment)
        self._output = output
        self._grace_s = grace_s
        self._processes: dict[str, Process] = {}
        self._ready = {program.name: asyncio.Event() for program in programs}
        self._ready_s: dict[str, float] = {}  # by the clock of the loop, of the process that runs
        self._restarted: dict[str, asyncio.Event] = {}  # of processes that restart on request
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the processes that run now, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    @property
    def output(self) -> Output:
        """The object that receives the lines of the processes."""
        return self._output

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._stopping.is_set()

    async def __aenter__(self) -> Self:
        """Start every process, and wait until all processes are ready or ``stop`` is called.

        Raises:
            ProcessFailed: If a process does not start.
        """
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the processes; after the grace period, kill the processes that are still running."""
        await self._close()

    async def _start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep_running(program), name=program.name)
            for program in self._programs
        ]
        while not self._stopping.is_set() and (late := self._not_ready()):
            await self._until(self._all_ready(), asyncio.sleep(REMINDER_S))
            if self._not_ready() == late and not self._stopping.is_set():
                words = self._output.last_words(late[0])
                self._output.say(f"waiting for {', '.join(late)}; {late[0]} says: {words}")

    async def wait(self) -> None:
        """Wait until ``stop`` is called.

        Raises:
            ProcessFailed: If a process cannot be kept running.
        """
        await self._until()

    def stop(self) -> None:
        """Ask every process to end; on the second call, kill every process.

        Signal handlers may call this method.
        """
        impolite = self._stopping.is_set()
        self._stopping.set()
        for process in self._processes.values():
            process.send_signal(signal.SIGKILL if impolite else signal.SIGTERM)

    async def restart(self, name: str) -> None:
        """Ask a process to end, and wait until the next process is ready or ``stop`` is called.

        The process finishes its calls first. After the grace period, the process is killed.

        Raises:
            ProcessFailed: If a process cannot be kept running.
        """
        process = self._processes.get(name)
        if process is None or self.stopping:
            return  # the next process has the changed code anyhow
        ready = self._restarted[name] = asyncio.Event()
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._grace_s)
        except TimeoutError:
            self._output.say(f"{name} did not end within {self._grace_s:g} s: killing")
            process.send_signal(signal.SIGKILL)
        await self._until(ready.wait())
        self._restarted.pop(name, None)

    async def _close(self) -> None:
        if not self._stopping.is_set():
            self.stop()
        _, late = await asyncio.wait(self._tasks, timeout=self._grace_s)
        if late:
            names = ", ".join(sorted(task.get_name() for task in late))
            self._output.say(f"{names} did not end within {self._grace_s:g} s: killing")
            self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until(self, *conditions: Coroutine[Any, Any, object]) -> None:
        """Wait for one of the conditions or for ``stop``; raise the error of a failed process."""
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(one) for one in conditions]
        waiting.append(asyncio.create_task(self._stopping.wait()))
        try:
            await asyncio.wait([*waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        for task in self._tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error

    def _not_ready(self) -> list[str]:
        return [name for name, event in self._ready.items() if not event.is_set()]

    async def _all_ready(self) -> None:
        for event in self._ready.values():
            await event.wait()

    async def _keep_running(self, program: Program) -> None:
        loop = asyncio.get_running_loop()
        false_starts = 0
        while not self._stopping.is_set():
            self._ready_s.pop(program.name, None)
            code = await self._run(program)
            if self._stopping.is_set():
                return
            if program.name in self._restarted and program.name in self._ready_s:
                continue  # the process was asked to end
            # A start has no time limit: on a busy machine even a start that fails takes long.
            ready_s = self._ready_s.get(program.name)
            healthy = ready_s is not None and loop.time() - ready_s >= HEALTHY_AFTER_S
            false_starts = 0 if healthy else false_starts + 1
            ended = f"{program.name} {_how_it_ended(code)}"
            if false_starts >= MAX_FALSE_STARTS and not self._ready[program.name].is_set():
                words = self._output.last_words(program.name)
                times = counted(false_starts, "time")
                raise ProcessFailed(f"{ended}, {times} at its start: {words}")
            delay_s = min(FIRST_DELAY_S * 2 ** max(false_starts - 1, 0), MAX_DELAY_S)
            self._output.say(f"{ended}: starting it again in {delay_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _run(self, program: Program) -> int:
        """Run a process until the process ends, and return the exit code."""
        order = Order(
            arguments=program.arguments,
            environment={
                name: value
                for name, value in self._environment.items()
                if name.upper() not in program.without
            },
            folder=str(Path.cwd()),
            grace_s=self._grace_s,
        )
        with contextlib.closing(await start(order, self._server)) as process:
            self._processes[program.name] = process
            if self._stopping.is_set():  # ``stop`` was called while the process was being started
                process.send_signal(signal.SIGTERM)
            listening = asyncio.create_task(self._listen(program, process.connection))
            try:
                await self._output.copy(program.name, process.output)
                return await process.wait()
            finally:
                listening.cancel()
                del self._processes[program.name]

    async def _listen(self, program: Program, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if await loop.sock_recv(connection, 16):
            self._ready_s[program.name] = loop.time()
            self._ready[program.name].set()
            if (restarted := self._restarted.get(program.name)) is not None:
                restarted.set()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def inherited_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment for its children, with some variables changed."""
    return {**os.environ, **changes}  # noqa: TID251  passed on, not read

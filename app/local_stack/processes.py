"""The processes of a stack, which are forked from a fork server or, without one, spawned.

Every process is in a session of its own and has a socket to this process, see
``app.local_stack.supervised``.
"""

import asyncio
import os
import socket
import sys
from typing import Protocol

from app.local_stack.fork_server import Forked, ForkServer
from app.local_stack.forking import Order
from app.local_stack.process_output import MAX_LINE_BYTES


class Process(Protocol):
    """A process that was started.

    Attributes:
        pid: The process id.
        output: The standard output and the standard error.
        connection: This process's end of the socket.
    """

    pid: int
    output: asyncio.StreamReader
    connection: socket.socket

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended."""

    async def wait(self) -> int:
        """Wait for the end, and return the exit code; the code of a signal is negative.

        Several tasks may wait at the same time.
        """

    def close(self) -> None:
        """Release the descriptors; a process that still runs sees that and ends itself."""


async def start(order: Order, server: ForkServer | None) -> Process:
    """Start a process.

    Args:
        order: What the process does.
        server: The server that forks the process, or None for a process of its own imports.

    Raises:
        ForkServerFailed: If the server has ended.
    """
    return await (_spawn(order) if server is None else _fork(order, server))


class _ForkedProcess:
    def __init__(
        self, worker: Forked, output: asyncio.StreamReader, pipe: asyncio.ReadTransport
    ) -> None:
        self.pid, self.connection, self.output = worker.pid, worker.connection, output
        self.send_signal = worker.send_signal
        self._worker = worker
        self._pipe = pipe
        self._end = asyncio.create_task(self._ended())
        self.connection.setblocking(False)

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def _ended(self) -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._worker, ended.set)
        await ended.wait()
        loop.remove_reader(self._worker)
        # The fork server tells the code at once.
        return await asyncio.to_thread(self._worker.wait)

    def close(self) -> None:
        self._end.cancel()
        # The cancelled task ends later, when another file may have this descriptor.
        asyncio.get_running_loop().remove_reader(self._worker)
        self._pipe.close()
        self._worker.close()


async def _fork(order: Order, server: ForkServer) -> Process:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    try:
        worker = await asyncio.to_thread(server.fork, order, output=writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    output = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(reading, "rb", buffering=0)
    )
    return _ForkedProcess(worker, output, pipe)


class _SpawnedProcess:
    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        assert process.stdout is not None
        self.pid, self.output, self.connection = process.pid, process.stdout, connection
        self.wait = process.wait
        self.close = connection.close
        self._process = process
        self.connection.setblocking(False)

    def send_signal(self, number: int) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)


async def _spawn(order: Order) -> Process:
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.local_stack.supervised"),
            *(str(theirs.fileno()), str(order.grace_s), *order.arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=order.environment,
            cwd=order.folder,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
    return _SpawnedProcess(process, ours)

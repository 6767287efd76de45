"""The fork server as its supervisor sees it; ``app.local_stack.forking`` is its program."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from app.errors import AgentChordError
from app.local_stack.forking import NUMBER_BYTES, READY, REQUEST, Order

#: Workers can be forked where a process has a file descriptor, which Linux alone has.
CAN_FORK = hasattr(os, "pidfd_open")
#: The code of a worker whose end nobody saw, because the fork server had ended before.
UNSEEN = 1


class ForkServerFailed(AgentChordError):
    """The fork server cannot be started; its own output says why."""


class Forked:
    """A forked worker.

    Args:
        pid: Process id of the worker.
        process: File descriptor of the process, which belongs to this object now.
        report: The socket on which the fork server tells the exit code.
        connection: The supervisor's end of the connection to the worker.
    """

    def __init__(
        self, pid: int, process: int, report: socket.socket, connection: socket.socket
    ) -> None:
        self.pid = pid
        self.connection = connection
        self._process = process
        self._report = report

    def fileno(self) -> int:
        """Return the file descriptor of the process, which is readable when the process ended."""
        return self._process

    def send_signal(self, number: int) -> None:
        """Send a signal to the worker; nothing happens if the worker has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end of the worker, and return its exit code; a signal's code is negative.

        Raises:
            TimeoutError: If the worker runs for longer than ``timeout_s`` seconds.
        """
        if not select.select([self], [], [], timeout_s)[0]:
            raise TimeoutError(f"process {self.pid} has not ended within {timeout_s} s")
        code = self._report.recv(NUMBER_BYTES)
        return int.from_bytes(code, signed=True) if code else UNSEEN

    def close(self) -> None:
        """Release the descriptors; a worker that still runs sees that and ends itself."""
        os.close(self._process)
        self._report.close()
        self.connection.close()


class ForkServer:
    """Starts workers that share one import. Its program starts at once and imports meanwhile.

    Its weakness: a change of AgentChord's own files reaches workers only through a new fork server.

    Args:
        environment: Environment of the program, without keys of providers.
        protocols: Names of the protocols whose SDKs the workers use.

    Example:
        with ForkServer(environment, ["openai"]) as server:
            worker = server.fork(order, output=log.fileno())
    """

    def __init__(self, environment: Mapping[str, str], protocols: Iterable[str]) -> None:
        self._environment = dict(environment)
        self._protocols = tuple(protocols)
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._program = subprocess.Popen(
                [
                    *(sys.executable, "-m", "app.local_stack.forking"),
                    *(str(theirs.fileno()), *self._protocols),
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the program. Workers go on until their connections are closed."""
        self._requests.close()
        self._program.kill()
        self._program.wait()

    def fork(self, order: Order, *, output: int) -> Forked:
        """Start a worker, once everything is imported; threads may call this at the same time.

        Args:
            order: What the worker does.
            output: File descriptor for the worker's standard output and standard error.

        Raises:
            ForkServerFailed: If the program cannot be started, or ends before the worker starts.
        """
        with self._lock:
            # A program that was killed since the last worker is started again.
            worker = self._attempt(output) or self._attempt(output)
        if worker is None:
            raise ForkServerFailed("the process that imports AgentChord for all workers ended")
        with contextlib.suppress(BrokenPipeError):  # the exit code tells that the worker has ended
            order.send(worker.connection)
        return worker

    def _attempt(self, output: int) -> Forked | None:
        if self._program.poll() is not None:
            self._requests.close()
            self._start()
        if not self._ready:
            self._ready = self._requests.recv(1) == READY
        worker = self._forked(output) if self._ready else None
        if worker is None:  # the program is ending, or has ended
            self._program.kill()
            self._program.wait()
        return worker

    def _forked(self, output: int) -> Forked | None:
        ours, theirs = socket.socketpair()
        report, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with told, theirs, contextlib.suppress(OSError):
            fds = [told.fileno(), theirs.fileno(), output]
            socket.send_fds(self._requests, [REQUEST], fds)
        pid, given, _, _ = socket.recv_fds(report, NUMBER_BYTES, 1)
        if given:
            os.set_inheritable(given[0], False)
            return Forked(int.from_bytes(pid), given[0], report, ours)
        ours.close()
        report.close()
        return None

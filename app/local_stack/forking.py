"""The fork server: imports everything that workers need, then forks one worker per request.

The imports of a worker take seconds of CPU and over 100 MB. Forked workers share them, so they
start at once and share this memory. ``app.local_stack.fork_server`` starts this program as
``python -m app.local_stack.forking FD [PROTOCOL...]``. FD is a socket. Each packet on it asks for
one worker, and has three file descriptors:

1. A socket on which this program tells the worker's process id, with a descriptor of the process,
   and later the worker's exit code.
2. A socket from which the new worker reads its ``Order``. Afterwards this socket is the worker's
   connection to its supervisor; see ``app.local_stack.supervised``.
3. The standard output and the standard error of the worker.

This program has one thread and no connection to a service, because a fork copies neither threads
nor the state of a connection. It has no keys of providers, because keys arrive in the orders. So no
key of a worker stands in ``/proc/PID/environ``.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Self

#: Modules that every worker uses and ``workers.tasks`` does not import.
MODULES = (
    "app.documents.files",
    "app.documents.text",
    "app.documents.yaml_reader",
    "app.local_stack.supervised",
    "app.storage.celery_redis",
    "billiard.dummy",
    "billiard.pool",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.thread",
    "celery.events",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "encodings.idna",
    "encodings.utf_8_sig",
    "importlib.readers",
    "importlib.resources.readers",
    "kombu.matcher",
    "kombu.transport.redis",
    "workers.requests",
    "workers.tasks",
)
#: The packet by which this program says that everything is imported.
READY = b"r"
#: The packet by which a supervisor asks for a worker.
REQUEST = b"f"
NUMBER_BYTES = 4
DESCRIPTORS = 3


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order of one worker.

    Attributes:
        arguments: Command line of ``celery``.
        environment: All environment variables of the worker.
        folder: The current folder of the worker.
        grace_s: Seconds between SIGTERM and SIGKILL after the end of the supervisor.
    """

    arguments: Sequence[str]
    environment: dict[str, str]
    folder: str
    grace_s: float

    def send(self, connection: socket.socket) -> None:
        """Send the order to a worker."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        head = [str(self.grace_s), self.folder, str(len(self.arguments))]
        # Paths and variables may have any bytes but zero, so they are no JSON.
        text = b"\0".join(map(os.fsencode, [*head, *self.arguments, *variables]))
        connection.sendall(len(text).to_bytes(NUMBER_BYTES) + text)

    @classmethod
    def receive(cls, connection: socket.socket) -> Self:
        """Receive the order of this process.

        Raises:
            EOFError: If the supervisor has ended.
        """
        size = int.from_bytes(_exactly(connection, NUMBER_BYTES))
        texts = map(os.fsdecode, _exactly(connection, size).split(b"\0"))
        grace_s, folder, count, *rest = texts
        arguments, variables = rest[: int(count)], rest[int(count) :]
        return cls(
            arguments=tuple(arguments),
            environment=dict(each.split("=", 1) for each in variables),
            folder=folder,
            grace_s=float(grace_s),
        )


class Forking:
    """Forks workers and tells how they end.

    Args:
        requests: The socket on which requests arrive.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._reports: dict[int, socket.socket] = {}  # by process id
        self._children, self._ended_child = socket.socketpair()
        for each in (self._children, self._ended_child):
            each.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._ended_child.fileno())

    def serve(self) -> socket.socket | None:
        """Fork a worker for each request.

        Returns:
            None after the other end of the socket was closed. In a new worker, the connection to
            its supervisor.
        """
        while True:
            readable, _, _ = select.select([self._requests, self._children], [], [])
            if self._children in readable:
                self._children.recv(1024)
                self._tell_ends()
            if self._requests in readable:
                try:
                    packet, given, _, _ = socket.recv_fds(self._requests, 1, DESCRIPTORS)
                except ConnectionResetError:  # the supervisor ended and had not read READY
                    return None
                if not packet:
                    return None
                report, supervisor, output = given
                pid = os.fork()
                if pid == 0:
                    os.close(report)
                    return self._begin(supervisor, output)
                os.close(supervisor)
                os.close(output)
                self._reports[pid] = socket.socket(fileno=report)
                self._tell_start(pid)

    def _tell_start(self, pid: int) -> None:
        # Only this process can wait for the worker, so the process id cannot be used again yet.
        process = os.pidfd_open(pid)
        with contextlib.suppress(OSError):
            socket.send_fds(self._reports[pid], [pid.to_bytes(NUMBER_BYTES)], [process])
        os.close(process)

    def _tell_ends(self) -> None:
        while self._reports:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            # Nobody listens any more if the supervisor has let the worker go.
            with self._reports.pop(pid) as report, contextlib.suppress(OSError):
                report.send(code.to_bytes(NUMBER_BYTES, signed=True))

    def _begin(self, supervisor: int, output: int) -> socket.socket:
        """Begin the life of a worker, with a session, signals and standard streams of its own."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # While a worker has these sockets, nobody can see that their other owners have ended.
        for each in (self._requests, self._children, self._ended_child, *self._reports.values()):
            each.close()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(output)
        os.set_inheritable(supervisor, False)
        return socket.socket(fileno=supervisor)


def main(fd: int, protocols: Iterable[str]) -> None:
    """Import everything, and fork workers until the other end of the socket is closed.

    Args:
        fd: File descriptor of the socket.
        protocols: Names of the protocols whose SDKs the workers use.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor
    requests = socket.socket(fileno=fd)
    requests.set_inheritable(False)
    gc.disable()
    load(protocols)
    # The collector of a worker must not look at these objects, because that would copy their pages.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError):
        requests.send(READY)
    supervisor = Forking(requests).serve()
    if supervisor is not None:
        _work(supervisor)


def load(protocols: Iterable[str]) -> None:
    """Import the modules of all workers and the SDKs of these protocols."""
    for name in MODULES:
        import_module(name)
    from app.costs.price_list import PriceList
    from app.domain.protocols import PROTOCOLS
    from app.llm.dialect import dialect_of

    PriceList().models("")
    for name in protocols:
        # A client that is made and never used imports also what an SDK imports late.
        dialect_of(PROTOCOLS[name]).client("none").preload()


def _work(supervisor: socket.socket) -> None:
    """Be the worker of the order that arrives."""
    from app.local_stack.supervised import run

    order = Order.receive(supervisor)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.path[0] = order.folder
    gc.enable()
    run(supervisor, order.grace_s, order.arguments)


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError("the supervisor ended before it sent the order")
        parts += part
    return bytes(parts)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

"""A server that answers every request with bytes that never end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.support.pace import scaled


@dataclass
class EndlessServer:
    """A running server.

    Attributes:
        url: Address of the server.
        sent: Bytes that the server has sent since its start.
    """

    url: str
    sent: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)

    def answer(self, connection: socket.socket, begin: bytes, piece: bytes) -> None:
        """Read the beginning of a request, and send until the client goes away."""
        with suppress(OSError), connection:
            connection.settimeout(scaled(10))
            connection.recv(65_536)
            connection.sendall(begin)
            while piece and not self._stopped.is_set():
                self.sent += connection.send(piece)

    def stop(self) -> None:
        """End all answers."""
        self._stopped.set()


@contextmanager
def endless(begin: bytes, piece: bytes) -> Iterator[EndlessServer]:
    """Run a server on a free port of this machine.

    Args:
        begin: The beginning of every answer.
        piece: The bytes that follow again and again; without bytes, the connection is closed.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = EndlessServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                work = (connection, begin, piece)
                threading.Thread(target=server.answer, args=work, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        server.stop()
        listener.close()

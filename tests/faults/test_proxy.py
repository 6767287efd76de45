"""The proxy of the fault suite."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults import proxy as proxies
from tests.faults.proxy import Proxy, Way
from tests.support.pace import scaled

SOON_S = 0.2


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Path]:
    """A Unix socket that echoes everything in capitals."""
    path = tmp_path / "echo"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while data := connection.recv(100):
                        connection.sendall(data.upper())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(scaled(5))


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=scaled(5)) as client:
        client.sendall(b"a")
        assert client.recv(10) == b"A"
        yield client


@pytest.mark.parametrize("way", [Way.THERE, Way.BACK, Way.BOTH])
def test_nothing_gets_through_a_cut_and_everything_arrives_after_it(echo: Path, way: Way) -> None:
    with Proxy(echo) as proxy, connected(proxy) as client:
        with proxy.cut(way):
            client.sendall(b"bc")
            client.settimeout(SOON_S)
            with pytest.raises(TimeoutError):
                client.recv(10)
        client.settimeout(scaled(5))

        assert client.recv(10) == b"BC"


def test_after_a_long_cut_both_ends_have_given_up(
    echo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "GIVEN_UP_S", 0.0)
    with Proxy(echo) as proxy, connected(proxy) as client:
        with proxy.cut(Way.BACK):
            client.sendall(b"b")

        with suppress(ConnectionResetError):
            assert client.recv(10) == b""
        with connected(proxy):
            pass


def test_who_connects_to_a_cut_network_waits(echo: Path) -> None:
    with Proxy(echo) as proxy:
        with proxy.cut(Way.BOTH):
            late = socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON_S)
            late.sendall(b"z")
            with pytest.raises(TimeoutError):
                late.recv(10)
        late.settimeout(scaled(5))

        assert late.recv(10) == b"Z"
        late.close()

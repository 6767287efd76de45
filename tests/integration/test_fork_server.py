"""The fork server: its workers are whole processes that share nothing but their imports."""

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from app.local_stack.fork_server import UNSEEN, Forked, ForkServer, ForkServerFailed
from app.local_stack.forking import Order
from tests.support.pace import scaled
from tests.support.waiting import wait_until

PLANTED = "sk-planted-in-the-order"
END_S = scaled(60.0)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """A server whose workers use no SDK."""
    with ForkServer(os.environ, []) as server:
        yield server


def order(*arguments: str, folder: Path, **environment: str) -> Order:
    """Return the order of a process that runs this command of Celery."""
    return Order(
        arguments=arguments, environment=os.environ | environment, folder=str(folder), grace_s=1.0
    )


@contextlib.contextmanager
def forked(
    server: ForkServer, folder: Path, *arguments: str, **environment: str
) -> Iterator[tuple[Forked, Path]]:
    """Run a command of Celery in a forked process; yield the process and its output."""
    output = folder / "output"
    with output.open("wb") as file:
        worker = server.fork(order(*arguments, folder=folder, **environment), output=file.fileno())
    with contextlib.closing(worker):
        yield worker, output
        worker.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_an_order_arrives_as_it_was_sent(size: int) -> None:
    odd = os.fsdecode(b"\xff\xc3=\n")
    sent = Order(
        arguments=("", odd, "-n"),
        environment={"EMPTY": "", "ODD": odd, "LONG": "x" * size},
        folder=f"/{odd}",
        grace_s=0.1,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(target=sent.send, args=(ours,))
        sending.start()
        assert Order.receive(theirs) == sent
        sending.join()


def test_a_command_runs_with_its_own_output_and_code(server: ForkServer, tmp_path: Path) -> None:
    with forked(server, tmp_path, "--version") as (worker, output):
        assert worker.wait(END_S) == 0
        assert output.read_text().strip()
    with forked(server, tmp_path, "--no-such-option") as (worker, output):
        assert worker.wait(END_S) == 2
        assert "--no-such-option" in output.read_text()


def test_a_killed_worker_has_the_code_of_its_signal(server: ForkServer, tmp_path: Path) -> None:
    with _waiting(server, tmp_path) as worker:
        with pytest.raises(TimeoutError, match="has not ended"):
            worker.wait(0.0)
        worker.send_signal(signal.SIGKILL)

        assert worker.wait(END_S) == -signal.SIGKILL
        worker.send_signal(signal.SIGTERM)  # it has ended, so nothing happens


def test_a_worker_has_a_session_of_its_own_and_no_descriptor_of_others(
    server: ForkServer, tmp_path: Path
) -> None:
    with _waiting(server, tmp_path) as first, _waiting(server, tmp_path) as second:
        for worker in (first, second):
            assert os.getsid(worker.pid) == worker.pid
            sockets = [
                link
                for number in Path(f"/proc/{worker.pid}/fd").iterdir()
                if (link := number.readlink().as_posix()).startswith("socket:")
            ]
            assert len(sockets) == 1, "a worker keeps only the socket to its supervisor"


def test_keys_of_an_order_are_in_no_process_table(server: ForkServer, tmp_path: Path) -> None:
    with _waiting(server, tmp_path, OPENAI_API_KEY=PLANTED) as worker:
        assert PLANTED.encode() not in Path(f"/proc/{worker.pid}/environ").read_bytes()


def test_threads_fork_at_once(server: ForkServer, tmp_path: Path) -> None:
    codes: list[int] = []

    def run(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        with forked(server, folder, "--version") as (worker, _):
            codes.append(worker.wait(END_S))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(END_S)

    assert codes == [0] * 12


def test_workers_outlive_the_server_and_the_next_has_a_new_one(tmp_path: Path) -> None:
    with ForkServer(os.environ, []) as server, _waiting(server, tmp_path) as worker:
        server._program.kill()
        server._program.wait()

        assert psutil.pid_exists(worker.pid)
        with _waiting(server, tmp_path) as second:
            assert psutil.Process(second.pid).ppid() == server._program.pid
        worker.send_signal(signal.SIGKILL)
        assert worker.wait(END_S) == UNSEEN, "nobody saw how it ended"


def test_a_server_that_dies_during_a_request_is_started_again(tmp_path: Path) -> None:
    with ForkServer(os.environ, []) as server, _waiting(server, tmp_path):
        os.kill(server._program.pid, signal.SIGSTOP)  # it takes the request and cannot answer
        first = server._program
        killing = threading.Timer(0.5, first.kill)
        killing.start()
        with _waiting(server, tmp_path) as worker:
            assert psutil.Process(worker.pid).ppid() == server._program.pid != first.pid
        killing.join()


def test_a_server_that_cannot_import_says_so(tmp_path: Path) -> None:
    (tmp_path / "celery.py").write_text("raise ImportError('planted')\n")
    with (
        ForkServer({**os.environ, "PYTHONPATH": str(tmp_path)}, []) as server,
        pytest.raises(ForkServerFailed, match="ended"),
        forked(server, tmp_path, "--version"),
    ):
        pass


@pytest.mark.parametrize("moment", ["importing", "imported", "ready"])
def test_the_server_ends_with_its_supervisor(moment: str) -> None:
    server = ForkServer(os.environ, [])
    if moment != "importing":
        assert select.select([server._requests], [], [], END_S)[0]
    if moment == "ready":
        server._requests.recv(1)
    server._requests.close()

    assert server._program.wait(END_S) == 0


@contextlib.contextmanager
def _waiting(server: ForkServer, folder: Path, **environment: str) -> Iterator[Forked]:
    """Run a process that waits until it is killed."""
    begun = folder / f"begun-{uuid4()}"
    (folder / "pausing.py").write_text(
        "import os, pathlib, signal\npathlib.Path(os.environ['BEGUN']).touch()\nsignal.pause()\n"
    )
    variables = environment | {"BEGUN": str(begun)}
    with forked(server, folder, "-A", "pausing", "report", **variables) as (worker, _):
        wait_until(begun.exists, what="the process runs")
        yield worker

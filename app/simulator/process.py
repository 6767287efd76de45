"""The simulator as a separate process. `run_in_process` starts the process; `serve` runs inside."""

import asyncio
import contextlib
import gc
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from app.simulator.config import SimulatorConfig
from app.simulator.server import Simulator

_PARENT_CHECK_S = 0.5
_START_S = 15.0
_STOP_S = 5.0
_CONTROL_S = 10.0


def serve(
    config: SimulatorConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ledger_path: Path | None = None,
    exit_with_parent: bool = False,
) -> None:
    """Run the simulator until SIGTERM or SIGINT.

    When the simulator is ready, the simulator prints one line of JSON with the keys port,
    openai_base_url and anthropic_base_url.

    Args:
        config: the behaviour at the start.
        host: address at which the simulator listens.
        port: port at which the simulator listens; 0 takes a free port.
        ledger_path: file to which every record is appended as a line of JSON.
        exit_with_parent: whether the simulator also ends when the parent process dies.

    Raises:
        OSError: If the port is in use.
    """
    parent = os.getppid() if exit_with_parent else None
    # The ledger keeps thousands of records. With the default thresholds of the garbage collector,
    # repeated full collections over these records take 10 % of the CPU under load.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    main = _serve(Simulator(config, host=host, port=port, ledger_path=ledger_path), parent)
    if find_spec("uvloop") is None:
        asyncio.run(main)
    else:
        import uvloop

        uvloop.run(main)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatorProcess:
    """A running simulator process, and its control routes."""

    process: subprocess.Popen[str]
    port: int
    openai_base_url: str
    anthropic_base_url: str

    def base_url_of(self, protocol: str) -> str:
        """Return the ``base_url`` for clients of a protocol.

        Raises:
            KeyError: If the simulator does not speak this protocol.
        """
        return {"openai": self.openai_base_url, "anthropic": self.anthropic_base_url}[protocol]

    def ledger(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the records with a sequence number above `since`, as JSON objects."""
        return list(self._request(f"ledger?since={since}"))

    def counts(self) -> list[dict[str, Any]]:
        """Return the records of the requests that counted the tokens of prompts."""
        return list(self._request("counts"))

    def summary(self) -> dict[str, Any]:
        """Return totals over all records."""
        return dict(self._request("ledger/summary"))

    def configure(self, **changes: Any) -> None:
        """Change the behaviour from the next request on; the values are JSON values.

        Raises:
            ValueError: If a name is unknown, or a value is out of range.
        """
        self._request("config", changes)

    def reset(self) -> None:
        """Restore the first configuration, with an empty ledger."""
        self._request("reset", {})

    def stop(self) -> None:
        """End the process; a second call does nothing."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        address = urlsplit(self.anthropic_base_url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=_CONTROL_S)
        with contextlib.closing(connection):
            method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
            connection.request(method, f"/_simulator/{path}", content)
            response = connection.getresponse()
            answer = json.load(response)
        if response.status != HTTPStatus.OK:
            raise ValueError(answer["error"])
        return answer


def start_process(arguments: Sequence[str] = ()) -> SimulatorProcess:
    """Start `python -m app.simulator` with these arguments, and wait until the simulator is ready.

    The simulator takes a free port unless the arguments name a port. The simulator ends when this
    process dies.

    Raises:
        RuntimeError: If the simulator ended, or was not ready within 15 s.
    """
    command = [sys.executable, "-m", "app.simulator", "--exit-with-parent", *arguments]
    # The simulator has its own session: Ctrl-C must not end the simulator before the clients.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    line = _first_line(process.stdout, time.monotonic() + _START_S)
    if not line:
        process.kill()
        status = process.wait()
        process.stdout.close()
        raise RuntimeError(f"{command!r} did not start: exit status {status}")
    return SimulatorProcess(process=process, **json.loads(line))


@contextlib.contextmanager
def run_in_process(*arguments: str) -> Iterator[SimulatorProcess]:
    """Run the simulator as a process for the length of a `with` block.

    Example:
        with run_in_process("--latency", "0.2") as sim:
            client = AsyncOpenAI(base_url=sim.openai_base_url, api_key="any", max_retries=0)
    """
    simulator = start_process(arguments)
    try:
        yield simulator
    finally:
        simulator.stop()


async def _serve(simulator: Simulator, parent: int | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    async with simulator:
        ready = {
            "port": simulator.port,
            "openai_base_url": simulator.openai_base_url,
            "anthropic_base_url": simulator.anthropic_base_url,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        # When the parent process dies, the id of this process's parent changes. Polling this id
        # works on every platform. The death signal of Linux would already come when the thread that
        # started this process ends.
        while not stopping.is_set() and parent in (None, os.getppid()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), None if parent is None else _PARENT_CHECK_S)


def _first_line(stream: IO[str], deadline_s: float) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        ready = selector.select(max(0.0, deadline_s - time.monotonic()))
    return stream.readline() if ready else ""

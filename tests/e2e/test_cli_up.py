"""`agentchord up` for an operator: ready, killed, and gone without leftovers."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.simulator import SimulatorProcess, run_in_process
from tests.support.ledgers import dollars_of
from tests.support.pace import scaled
from tests.support.promql import page_at, summed
from tests.support.stack import ROOT
from tests.support.waiting import wait_until

READY_S = scaled(60.0)
CONFIGURATION = "imports: [app.examples.tools]\nengine: {worker_threads: 16, drain_grace_s: 3}\n"


class Up:
    """A running `agentchord up` with one worker, in a home of its own."""

    def __init__(self, home: Path, environment: dict[str, str], *words: str) -> None:
        self.home = home
        self.environment = environment
        self.log = home.parent / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "up", "--workers", "1", "--json", *words],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text(errors="replace")
        self.ready: dict[str, Any] = json.loads(line)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """All processes of this home, with any parent."""
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get("AGENTCHORD_HOME") == str(self.home) or any(
                    str(self.home) in word for word in process.cmdline()
                )
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def nothing_left(self) -> bool:
        return not self.processes()


@contextmanager
def running_up(
    folder: Path, simulator: SimulatorProcess, *words: str, configuration: str = ""
) -> Iterator[Up]:
    folder.mkdir(exist_ok=True)
    file = folder / "agentchord.yaml"
    file.write_text(CONFIGURATION + configuration)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AGENTCHORD_HOME": str(folder / "home"),
        "AGENTCHORD_CONFIG": str(file),
        "OPENAI_BASE_URL": simulator.openai_base_url,
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_BASE_URL": simulator.anthropic_base_url,
        "ANTHROPIC_API_KEY": "any",
    }
    up = Up(folder / "home", environment, *words)
    try:
        yield up
    finally:
        up.process.terminate()  # killed keepers would leave their servers behind
        with suppress(subprocess.TimeoutExpired):
            up.process.communicate(timeout=READY_S)
        up.process.kill()
        up.process.communicate()
        while left := up.processes():  # a keeper may start its server again before it is killed
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def free_ports(number: int) -> int:
    """The first port of a row of free ones."""
    with ExitStack() as sockets:
        while True:
            found = [sockets.enter_context(socket.socket()) for _ in range(number)]
            with suppress(OSError):
                found[0].bind(("127.0.0.1", 0))
                first = int(found[0].getsockname()[1])
                for offset, other in enumerate(found[1:], 1):
                    other.bind(("127.0.0.1", first + offset))
                return first


def counted(addresses: list[str]) -> dict[str, object]:
    """Calls and attempts in the workers' metrics."""
    page = {key: value for address in addresses for key, value in page_at(address).items()}
    return {
        "calls": summed(page, "agentchord_calls_total", "provider", "model", "outcome"),
        "tokens": summed(page, "agentchord_tokens_total", "direction"),
        "usd": round(sum(summed(page, "agentchord_cost_usd_total").values()), 9),
        "timed": sum(summed(page, "agentchord_call_seconds_count").values()),
        "attempts": summed(page, "agentchord_attempts_total", "outcome"),
        "waited": summed(page, "agentchord_wait_seconds_count", "reason")[("limit",)],
        "under way": sum(summed(page, "agentchord_attempts_in_flight").values()),
    }


def served(simulator: SimulatorProcess) -> dict[str, object]:
    """The same, in the provider's ledger."""
    records = simulator.ledger()
    outcomes = {200: "ok", 500: "ServerFailure"}
    return {
        "calls": Counter((r["provider"], r["model"], outcomes[r["status"]]) for r in records),
        "tokens": {
            ("input",): sum(record["input_tokens"] for record in records),
            ("output",): sum(record["output_tokens"] for record in records),
        },
        "usd": round(float(sum(dollars_of(record) for record in records)), 9),
        "timed": len(records),
        "waited": 4,
        "under way": 0,
    }


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with run_in_process() as simulator:
        yield simulator


def test_it_serves_runs_restarts_what_dies_and_ends_cleanly_on_sigterm(
    tmp_path: Path, simulator: SimulatorProcess
) -> None:
    simulator.configure(faults=[{"kind": "status", "status": 500, "first": 1}])
    port = free_ports(2)
    with running_up(tmp_path, simulator, "--metrics-port", str(port)) as up:
        assert up.ready["workers"] == 1
        assert up.ready["pids"].keys() == {"worker1", "scheduler"}

        first = up.cli("run", str(ROOT / "app" / "examples" / "basic.py"), "--follow", "--json")
        assert first.returncode == 0, first.stderr
        outputs = json.loads(first.stdout)["outputs"]
        assert outputs.keys() == {"data_extractor", "data_validator", "report_generator"}
        assert '"correct":true' in outputs["data_validator"]

        # The worker and the scheduler's worker have a port each, in any order.
        addresses = [f"http://127.0.0.1:{number}/metrics" for number in (port, port + 1)]
        ended = {("completed",): 3, ("retried",): 1}
        wait_until(lambda: counted(addresses)["attempts"] == ended, what="all are counted")
        assert counted(addresses) == served(simulator) | {"attempts": ended}

        os.kill(up.ready["pids"]["worker1"], signal.SIGKILL)
        wait_until(
            lambda: "worker1 was killed by SIGKILL: starting it again" in up.log.read_text(),
            what="the loss is told",
        )
        second = up.cli("run", "app.examples.basic", "--follow", "--json", "--timeout", "50")
        assert second.returncode == 0, second.stderr

        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(scaled(30)) == 0
        wait_until(up.nothing_left, what="no process is left")
        assert "Traceback" not in up.log.read_text()


def test_its_processes_end_when_it_is_killed_and_finish_their_calls_first(
    tmp_path: Path, simulator: SimulatorProcess
) -> None:
    simulator.reset()
    simulator.configure(latency_s=1.5)
    with running_up(tmp_path, simulator, "--log-files") as up:
        enqueued = up.cli("run", "app.examples.basic")
        wait_until(lambda: simulator.summary()["in_flight"] == 1, timeout_s=scaled(20))

        up.process.kill()
        up.process.wait(scaled(10))

        wait_until(up.nothing_left, timeout_s=scaled(30), what="no process is left")
        shown = json.loads(up.cli("status", enqueued.stdout.strip(), "--json").stdout)
        assert shown["agents"][0]["status"] == "completed"
        assert shown["status"] == "running"
        assert (up.home / "log" / "worker1.log").exists()


@pytest.mark.timeout(240)
def test_a_stack_that_cannot_start_ends_with_the_last_words_of_its_process(
    tmp_path: Path, simulator: SimulatorProcess
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AGENTCHORD_HOME": str(tmp_path),
        "AGENTCHORD_IMPORTS": "no_such_tools",
    }

    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "up", "--workers", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(200),
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("agentchord: ")
    assert "3 times at its start" in last
    assert "no_such_tools" in last


def test_the_simulator_has_no_built_in_limits(tmp_path: Path, simulator: SimulatorProcess) -> None:
    """With 60 requests per minute, 30 requests would take 29 s."""
    limits = {"openai": "none", "anthropic": "5,000/min"}
    agents = [
        {"name": f"a{n}", "prompt_template": "go", "llm_config": {"model": "gpt-4o-mini"}}
        for n in range(30)
    ]
    file = tmp_path / "many.json"
    file.write_text(json.dumps({"name": "many", "agents": agents}))
    own = "rate_limits: {anthropic: {default: {requests_per_minute: 5000}}}\n"

    with running_up(tmp_path, simulator, "--simulator", configuration=own) as up:
        done = up.cli("run", str(file), "--follow", "--json")

    assert up.ready["limits"] == limits
    run = json.loads(done.stdout)
    started, finished = (datetime.fromisoformat(run[key]) for key in ("started_at", "finished_at"))
    assert run["status"] == "completed"
    assert finished - started < timedelta(seconds=29)


def test_the_ready_line_names_the_limits(tmp_path: Path, simulator: SimulatorProcess) -> None:
    with running_up(tmp_path, simulator) as up:
        assert up.ready["limits"] == {
            "openai": "60/min (built-in)",
            "anthropic": "60/min (built-in)",
        }

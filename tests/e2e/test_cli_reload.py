"""`agentchord up --reload`, and the hint of `retry`: changed code reaches the workers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.simulator import SimulatorProcess, run_in_process
from tests.support.stack import ROOT
from tests.support.waiting import wait_until

READY_S = 120.0
TOOLS = """\
import prices


def total(wanted: int = 1) -> float:
    if wanted > 1:
        raise ValueError("there is only one")
    return prices.PRICE
"""
WORKFLOW = """\
name: shop
agents:
  - name: total
    kind: function
    config: {function: "shop_tools:total"}
    retry_policy: {max_retries: 0}
"""
HINT = "agentchord: the workers loaded shop_tools.py before you changed it: restart them, or run"


class Folder:
    """A user's folder with a module of functions, and a running `agentchord up` in it."""

    def __init__(self, path: Path, simulator: SimulatorProcess) -> None:
        self.path = path
        self.log = path / "up.log"
        self.write("shop_tools.py", TOOLS)
        self.write("prices.py", "PRICE = 1.0\n")
        self.write("shop.yaml", WORKFLOW)
        self.write("agentchord.yaml", "imports: [shop_tools]\nengine: {drain_grace_s: 90}\n")
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AGENTCHORD_HOME": str(path / "home"),
            "AGENTCHORD_CONFIG": str(path / "agentchord.yaml"),
            "OPENAI_BASE_URL": simulator.openai_base_url,
            "OPENAI_API_KEY": "any",
        }

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )

    def total(self) -> float:
        done = self.cli("run", "shop.yaml", "--follow", "--json")
        assert done.returncode == 0, done.stderr
        return float(json.loads(done.stdout)["outputs"]["total"])

    def said(self, text: str) -> None:
        """Wait for a line of `agentchord up`, once more than before."""
        wait_until(
            lambda: self.log.read_text(errors="replace").count(text) > 0,
            timeout_s=READY_S,
            what=text,
        )
        # The next wait is for a line that is written later.
        self.log.write_text("")


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with run_in_process() as simulator:
        yield simulator


@contextmanager
def running_up(path: Path, simulator: SimulatorProcess, *words: str) -> Iterator[Folder]:
    folder = Folder(path, simulator)
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up", "--workers", "1", "--json", *words],
            cwd=path,
            env=folder.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, folder.log.read_text(errors="replace")
        yield folder
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=READY_S)
        process.kill()
        process.communicate()


@pytest.mark.timeout(400)
def test_changed_code_reaches_the_workers_and_broken_code_does_not(
    tmp_path: Path, simulator: SimulatorProcess
) -> None:
    with running_up(tmp_path, simulator, "--reload") as folder:
        before = folder.total()
        folder.write("prices.py", "PRICE = 22.0\n")
        folder.said("prices.py changed: restarting the workers")
        folder.said("the workers have the changed code")
        changed = folder.total()

        folder.write("shop_tools.py", "def total(:\n")
        folder.said("shop_tools.py changed; the workers keep the code that they have: imports: ")
        kept = folder.total()

        folder.write("shop_tools.py", TOOLS.replace("prices.PRICE", "prices.PRICE + 1"))
        folder.said("the workers have the changed code")
        mended = folder.total()
        log = folder.log.read_text(errors="replace")

    assert (before, changed, kept, mended) == (1.0, 22.0, 22.0, 23.0)
    assert "starting it again" not in log
    assert "Traceback" not in log


@pytest.mark.timeout(300)
def test_a_reload_lets_the_calls_finish(tmp_path: Path, simulator: SimulatorProcess) -> None:
    simulator.reset()
    with running_up(tmp_path, simulator, "--reload") as folder:
        folder.write(
            "slow.yaml",
            "name: slow\nagents:\n  - name: slow\n    prompt_template: '[[sim:latency=25]] go'\n"
            "    llm_config: {model: gpt-4o-mini}\n",
        )
        run = folder.cli("run", "slow.yaml").stdout.strip()
        wait_until(lambda: simulator.summary()["in_flight"] == 1, timeout_s=READY_S)

        folder.write("prices.py", "PRICE = 3.0\n")
        folder.said("the workers have the changed code")

        shown = json.loads(folder.cli("status", run, "--json").stdout)
        assert (shown["status"], len(simulator.ledger())) == ("completed", 1)


@pytest.mark.timeout(300)
def test_retry_and_rerun_say_that_the_workers_have_older_code(
    tmp_path: Path, simulator: SimulatorProcess
) -> None:
    with running_up(tmp_path, simulator) as folder:
        done = folder.cli("run", "shop.yaml", "--input", '{"wanted": 2}', "--follow", "--json")
        run = json.loads(done.stdout)["run_id"]
        before = folder.cli("retry", run)
        wait_until(
            lambda: json.loads(folder.cli("status", run, "--json").stdout)["status"] == "failed",
            timeout_s=READY_S,
        )
        folder.write("shop_tools.py", TOOLS.replace("wanted > 1", "wanted > 9"))
        rerun = folder.cli("rerun", run, "total")
        retried = folder.cli("retry", run)

    assert "before you changed" not in before.stderr
    assert HINT in retried.stderr
    assert HINT in rerun.stderr
    assert (retried.returncode, rerun.returncode) == (0, 0)

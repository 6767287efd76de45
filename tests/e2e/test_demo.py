"""`agentchord demo`: the first command of a new user."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.pace import scaled
from tests.support.stack import ROOT
from tests.support.waiting import wait_until

POISON = {
    "OPENAI_API_KEY": "sk-real-money",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "ANTHROPIC_API_KEY": "sk-ant-real-money",
    "DATABASE_URL": "postgresql://127.0.0.1:9/precious",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "AGENTCHORD_CONFIG": "/nowhere.yaml",
    "AGENTCHORD_ENGINE__LANE_WIDTH": "nonsense",
}


def start(home: Path, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "demo", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **POISON, "AGENTCHORD_HOME": str(home)},
        cwd=cwd or home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(home: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AGENTCHORD_HOME") in (str(home), str(home / "demo")):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_it_runs_the_erp_example_and_its_ledger_equals_the_simulators(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-dotenv\nAGENTCHORD_IMPORTS=1x\n")
    home = tmp_path / "home"
    home.mkdir()

    with start(home, cwd=tmp_path) as demo:
        out, _ = demo.communicate(timeout=scaled(90))

    assert demo.returncode == 0, out
    assert "level 6 of 6" in out
    assert "executive_summary (General, claude-sonnet-5): completed" in out
    assert "completed, 12 agents: 12 completed" in out
    assert "Cost by agent, from Postgres" in out
    assert "The simulator served 12 requests" in out
    assert "says the same, model by model" in out
    assert "What to try next" in out
    assert left_behind(home) == []


def test_an_interrupt_stops_everything_with_exit_code_0(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout.readline, "")
        assert any(line.startswith("level 1 of 6") for line in lines)

        demo.send_signal(signal.SIGINT)

        out, _ = demo.communicate(timeout=scaled(40))
    assert demo.returncode == 0, out
    assert "interrupted; everything is stopped" in out
    assert "Traceback" not in out
    wait_until(lambda: not left_behind(tmp_path), what="no process is left")


def test_live_tells_the_worst_case_and_spends_nothing_where_nobody_can_agree(
    tmp_path: Path,
) -> None:
    (tmp_path / "agentchord.yaml").write_text("engine: {lane_width: 5}\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AGENTCHORD_HOME": str(tmp_path / "home"),
        "OPENAI_API_KEY": "sk-real-money",
    }

    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "demo", "--live"],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )

    assert done.returncode == 1
    assert "12 agents on real providers: at most $0." in done.stdout
    assert "never more than $1.5" in done.stdout
    assert "add --yes to agree" in done.stderr
    assert not (tmp_path / "home" / "demo" / "postgres").exists()


def test_a_termination_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()

        demo.terminate()

        out, _ = demo.communicate(timeout=scaled(40))
    assert demo.returncode == 0, out
    wait_until(lambda: not left_behind(tmp_path), what="no process is left")

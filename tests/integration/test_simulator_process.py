import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from app.simulator import Simulator, run_in_process
from app.simulator.__main__ import main
from tests.support.pace import scaled
from tests.support.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.anyio


async def hello(base_url: str, count: int = 1, text: str = "Hello") -> None:
    http = openai.DefaultAioHttpClient()
    async with AsyncOpenAI(
        base_url=base_url, api_key="k", max_retries=0, http_client=http
    ) as client:
        await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": f"{text} {number}"}]
                )
                for number in range(count)
            )
        )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_process_serves_answers_for_its_ledger_and_ends_at_sigterm(
    tmp_path: Path,
) -> None:
    file = tmp_path / "ledger.jsonl"
    with run_in_process("--latency", "0.05", "--ledger", str(file)) as sim:
        await hello(sim.openai_base_url, 20)
        records = sim.ledger(since=5)
        summary = sim.summary()
        sim.process.send_signal(signal.SIGTERM)
        status = sim.process.wait(scaled(5))

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert status == 0
    assert [record["seq"] for record in records] == list(range(6, 21))
    assert summary["by_status"] == {"200": 20}
    assert summary["by_model"]["openai/gpt-4o"]["requests"] == 20
    assert summary["peak_in_flight"] > 1
    assert sorted(line["seq"] for line in lines) == list(range(1, 21))
    assert all(line["seconds"] > 0.045 for line in lines)


async def test_behaviour_changes_while_it_runs() -> None:
    with run_in_process("--limit", "provider=openai,rpm=1") as sim:
        await hello(sim.openai_base_url)
        with pytest.raises(openai.RateLimitError):
            await hello(sim.openai_base_url)

        sim.configure(limits=[], faults=[{"kind": "status", "status": 503, "first": 1}])
        with pytest.raises(openai.InternalServerError):
            await hello(sim.openai_base_url)
        await hello(sim.openai_base_url)
        with pytest.raises(ValueError, match="latency"):
            sim.configure(latency=1)

        sim.reset()
        assert sim.summary()["requests"] == 0
        await hello(sim.openai_base_url)
        with pytest.raises(openai.RateLimitError):
            await hello(sim.openai_base_url)


def test_it_ends_when_the_process_that_started_it_dies() -> None:
    program = (
        "from app.simulator import start_process; "
        "print(start_process().process.pid, flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        was_alive = alive(pid)
        parent.kill()

    assert was_alive
    wait_until(lambda: not alive(pid))


async def test_a_reset_forgets_what_is_still_under_way() -> None:
    async with Simulator() as sim:
        task = asyncio.create_task(hello(sim.openai_base_url, text="Wait [[sim:latency=0.2]]"))

        async def arrived() -> bool:
            return bool(sim.ledger())

        await wait_until_async(arrived)
        sim.reset()
        await task

        assert sim.summary()["requests"] == 0
        assert sim.summary()["in_flight"] == 0
        assert sim.ledger() == []


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["--port", str(taken.getsockname()[1])])

    assert ended.value.code == 1
    assert "cannot listen" in capsys.readouterr().err


async def test_five_hundred_at_once_are_all_answered() -> None:
    async with Simulator() as sim:
        await hello(sim.openai_base_url, 500)

        assert sim.summary()["by_status"] == {"200": 500}
        assert len({record.request_id for record in sim.ledger()}) == 500

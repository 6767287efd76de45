"""Hostile code on real workers: it ends its own attempts, and a worker that cannot work ends."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue, enqueue_async
from app.errors import error_named
from app.local_stack.command_lines import worker_arguments
from app.local_stack.process_output import Output
from app.local_stack.supervisor import Program, Supervisor, inherited_environment
from tests.support.hostile_code import DEEDS, EXCEPTIONS
from tests.support.pace import scaled
from tests.support.stack import Stack, client_of, run_stack, search_path
from tests.support.waiting import wait_until_async
from workers.runtime import PROBES

MODULE = "tests.support.hostile_code"
ONE_RETRY = RetryPolicy(strategy=RetryStrategy.IMMEDIATE, max_retries=1)
FUNCTIONS = ("sync", "at_once", "after_awaits", "in_group", "wrapped", "value", "argument")
KINDS = ("hostile", "hostile_function", "hostile_import")
ENTRY_POINTS = f"""\
[agentchord.agents]
hostile = {MODULE}:Kind
hostile_function = {MODULE}:kind
hostile_import = hostile_import:Kind
"""
CONFIGURATION = f"""\
imports: [{MODULE}, tests.support.agent_functions]
on_failure: {MODULE}:on_failure
engine: {{drain_grace_s: 3}}
"""
AGENTS = "tests.support.agent_functions"
WAIT_S = scaled(60.0)
PARTS = ("background", "heartbeat", "loop", "blocked loop", "threads", "locked interpreter")
PLACES = st.sampled_from([*FUNCTIONS, *KINDS])
DONE_BY = st.sampled_from([*EXCEPTIONS, *DEEDS, "agent_error"])


@pytest.fixture(scope="module")
def hostile_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with hostile code, whose only worker serves no queue of agents."""
    folder = tmp_path_factory.mktemp("hostile")
    about = folder / "hostile-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: hostile\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    (folder / "hostile_import.py").write_text(
        "import threading\n"
        "class Kind:\n"
        "    def __init__(self):\n"
        "        if threading.current_thread().name == 'tool':\n"
        "            raise KeyboardInterrupt\n"
        "    def validate(self, config): ...\n"
        "    def run(self, context): ...\n"
    )
    path = f"{folder}:{search_path()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        with (
            run_stack(folder, "scheduler", configuration=CONFIGURATION, PYTHONPATH=path) as stack,
            client_of(stack, patch),
        ):
            yield stack


@contextmanager
def served(stack: Stack) -> Iterator[None]:
    """Serve the queue of functions with one process, which must still be the same at the end."""
    with stack.worker("function") as worker:
        yield
        assert worker.process.poll() is None, worker.log.read_text(errors="replace")[-5000:]


def hostile_agent(number: int, place: str) -> Agent:
    kind = place if place in KINDS else "function"
    return Agent(
        name=f"a{number}",
        kind=kind,
        config={"function": f"{MODULE}:{place}"} if kind == "function" else {},
        input_mapping={"what": f"what{number}"},
        retry_policy=ONE_RETRY,
    )


def harmless_agent(name: str) -> Agent:
    config = {"function": "tests.support.agent_functions:where_async"}
    return Agent(name=name, kind="function", config=config)


def harmless() -> Workflow:
    return Workflow(name="harmless", agents=[harmless_agent("a")])


def test_any_exception_at_any_place_leaves_one_counted_record_and_a_worker_that_goes_on(
    hostile_stack: Stack,
) -> None:
    # Each example is a run, so no example is repeated to make it smaller.
    @settings(max_examples=6, phases=[Phase.generate])
    @given(st.lists(st.tuples(PLACES, DONE_BY), min_size=12, max_size=24))
    def law(attacks: list[tuple[str, str]]) -> None:
        agents = [hostile_agent(number, place) for number, (place, _) in enumerate(attacks)]
        # A run ends early once most of its agents have failed, and its other agents are cancelled.
        agents += [harmless_agent(f"harmless{number}") for number in range(len(attacks) + 1)]
        given_input = {f"what{number}": what for number, (_, what) in enumerate(attacks)}
        workflow = Workflow(name="hostile", agents=agents, max_parallel_agents=len(agents))
        run = enqueue(workflow, given_input)

        assert run.wait(timeout=WAIT_S) == "partially_completed"
        assert enqueue(harmless()).wait(timeout=WAIT_S) == "completed"
        check_attempts(hostile_stack, run, attacks)

    with served(hostile_stack):
        law()


def timed_agent(name: str, **config: Any) -> Agent:
    return Agent(
        name=name,
        kind="function",
        config=config,
        timeout=5,
        retry_policy=RetryPolicy(strategy=RetryStrategy.IMMEDIATE, max_retries=0),
    )


def test_code_that_blocks_its_loop_or_a_validator_ends_at_its_deadline(
    hostile_stack: Stack,
) -> None:
    blocking = Workflow(
        name="blocking",
        agents=[
            timed_agent("loop", function=f"{MODULE}:block_loop"),
            timed_agent(
                "argument", function=f"{MODULE}:slow_argument", arguments={"seconds": 3600}
            ),
            # A run ends early once most of its agents have failed.
            *(timed_agent(f"sync{number}", function=f"{AGENTS}:where") for number in range(4)),
        ],
    )
    with served(hostile_stack):
        run = enqueue(blocking)
        assert run.wait(timeout=WAIT_S) == "partially_completed"
        # The loop of the code is still blocked. Its calls move to a new loop.
        assert enqueue(harmless()).wait(timeout=WAIT_S) == "completed"

    rows = hostile_stack.sql(
        "SELECT r.name, a.outcome, a.error_class, r.recoveries FROM agent_runs r"
        " JOIN attempts a ON a.agent_run_id = r.id WHERE r.run_id = %s AND r.status = 'failed'"
        " ORDER BY r.name",
        run.id,
    )
    assert [tuple(row.values()) for row in rows] == [
        ("argument", "failed", "AgentTimeout", 0),
        ("loop", "failed", "AgentTimeout", 0),
    ]


def test_a_function_that_changes_its_inputs_changes_them_for_no_other_agent(
    hostile_stack: Stack,
) -> None:
    config = {"function": f"{MODULE}:change", "arguments": {"others": [0]}}
    agents = [Agent(name=f"a{number}", kind="function", config=config) for number in range(8)]
    with served(hostile_stack):
        run = enqueue(Workflow(name="changing", agents=agents), {"numbers": [0]})
        assert run.wait(timeout=WAIT_S) == "completed"

    assert run.outputs == {agent.name: {"before": [0]} for agent in agents}


def check_attempts(stack: Stack, run: Run, attacks: list[tuple[str, str]]) -> None:
    rows = stack.sql(
        "SELECT r.name, r.status, r.retries, r.recoveries, a.outcome, a.error_class, a.error"
        " FROM agent_runs r JOIN attempts a ON a.agent_run_id = r.id"
        " WHERE r.run_id = %s AND r.name NOT LIKE 'harmless%%'",
        run.id,
    )
    attempts = Counter(row["name"] for row in rows)
    for row in rows:
        attack = attacks[int(row["name"].removeprefix("a"))]
        known = error_named(row["error_class"])
        retries = int(known is not None and known.retriable)
        assert (row["status"], row["outcome"]) == ("failed", "failed"), (attack, row)
        assert (row["retries"], row["recoveries"]) == (retries, 0), (attack, row)
        assert attempts[row["name"]] == 1 + retries, (attack, row)
        assert 0 < len(row["error"]) <= 2000, attack
    assert len(attempts) == len(attacks)


HOSTILE_IMPORTS = {
    "at_import": "raise SystemExit(0)",
    "at_exports": "def __getattr__(name): raise SystemExit(0)",
    "at_values": (
        "class Odd:\n    @property\n    def __class__(self): raise GeneratorExit\nodd = Odd()\n"
        "odd.__dict__['__module__'] = __name__"
    ),
}


@pytest.mark.parametrize("name", HOSTILE_IMPORTS)
def test_a_worker_refuses_a_hostile_module_by_name_and_ends_with_a_status(
    hostile_stack: Stack, tmp_path: Path, name: str
) -> None:
    (tmp_path / f"hostile_{name}.py").write_text(HOSTILE_IMPORTS[name], encoding="utf-8")
    arguments = worker_arguments(("function",), threads=1, name=name)

    log = tmp_path / "worker.log"
    environment = inherited_environment(
        **hostile_stack.environment
        | {
            "AGENTCHORD_IMPORTS": f"hostile_{name}",
            "PYTHONPATH": f"{tmp_path}:{search_path()}",
        }
    )
    with log.open("wb") as output:
        status = subprocess.run(
            [sys.executable, "-m", "celery", *arguments],
            env=environment,
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            timeout=3 * WAIT_S,
            check=False,
        ).returncode

    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.startswith("agentchord worker: ")]
    assert (status, len(lines)) == (1, 1), text[-5000:]
    assert f"module 'hostile_{name}' cannot be imported" in lines[0]


def supervised(stack: Stack, folder: Path, said: list[str], **environment: str) -> Supervisor:
    """Return a supervisor that keeps a worker for functions running, as ``agentchord up`` does."""
    program = Program(
        name="worker", arguments=worker_arguments(("function",), threads=8, name="doomed")
    )
    return Supervisor(
        [program],
        environment=inherited_environment(**stack.environment, **environment),
        output=Output(stream=io.BytesIO(), folder=folder, say=said.append),
        grace_s=10.0,
    )


@pytest.mark.timeout(400)
@pytest.mark.anyio
async def test_an_agent_that_stops_each_of_its_workers_is_quarantined(
    hostile_stack: Stack, tmp_path: Path
) -> None:
    stopping = Agent(name="a", kind="function", config={"function": f"{MODULE}:stop_process"})
    async with supervised(hostile_stack, tmp_path, [], HOSTILE_MOST_DRAINS="1"):
        run = await enqueue_async(Workflow(name="stopping", agents=[stopping]))
        assert await run.wait_async(timeout=3 * WAIT_S) == "failed"
        after = await enqueue_async(harmless())
        assert await after.wait_async(timeout=WAIT_S) == "completed"

    rows = hostile_stack.sql(
        "SELECT t.outcome, t.error_class FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id"
        " WHERE a.run_id = %s ORDER BY t.number",
        run.id,
    )
    assert [tuple(row.values()) for row in rows] == [
        ("handed_back", "WorkerStopped"),
        ("failed", "RecoveriesExhausted"),
    ]


@pytest.mark.timeout(400)  # a worker starts for each part
@pytest.mark.anyio
async def test_a_worker_that_cannot_work_ends_with_a_status_and_is_replaced(
    hostile_stack: Stack, tmp_path: Path
) -> None:
    said: list[str] = []
    supervisor = supervised(
        hostile_stack, tmp_path, said, HOSTILE_PROBE_S="0.5", HOSTILE_LOCKED_S="15"
    )
    config = {"function": f"{MODULE}:end_process"}
    deadly = Agent(name="a", kind="function", config=config)
    async with supervisor:
        frozen = supervisor.pids["worker"]
        before_all = await enqueue_async(harmless())
        assert await before_all.wait_async(timeout=WAIT_S) == "completed"
        os.kill(frozen, signal.SIGSTOP)
        await asyncio.sleep(2 * PROBES * 0.5)  # longer than the watch of the loop waits
        os.kill(frozen, signal.SIGCONT)
        thawed = await enqueue_async(harmless())
        assert await thawed.wait_async(timeout=WAIT_S) == "completed"
        assert supervisor.pids["worker"] == frozen

        for part in PARTS:
            before = supervisor.pids["worker"]
            run = await enqueue_async(Workflow(name="deadly", agents=[deadly]), {"part": part})
            await wait_until_async(
                lambda: asyncio.sleep(0, supervisor.pids.get("worker", before) != before),  # noqa: B023
                timeout_s=WAIT_S,
                what=f"a worker without its {part} has ended and is replaced",
            )
            await asyncio.to_thread(run.cancel)
        after = await enqueue_async(harmless())
        assert await after.wait_async(timeout=WAIT_S) == "completed"

    log = (tmp_path / "worker.log").read_text(encoding="utf-8", errors="replace")
    assert [line.split(":")[0] for line in said] == ["worker ended with code 1"] * len(PARTS), log[
        -9000:
    ]
    # No thread can write a log line without the lock of the interpreter.
    assert log.count("worker_cannot_work") == len(PARTS) - 1
    assert log.count("in block_thread") >= 1
    assert "Timeout (0:00:15)!" in log

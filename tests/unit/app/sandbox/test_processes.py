"""The processes of the sandbox: warm, limited, and never mixed up."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.domain.json_text import read_json
from app.sandbox import program
from app.sandbox.processes import MAX_BYTES, Sandbox, SandboxLimit
from app.sandbox.turns import Turn
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

ONE, OTHER = Turn(None, "one"), Turn(None, "other")


def endless() -> dict[str, Any]:
    return {"text": "a.all(x, a == a)", "variables": {"a": list(range(9999))}}


def exploding() -> dict[str, Any]:
    return {"text": "[[1]]" + ".map(y, y + y)" * 25 + " == []", "variables": {}}


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and any("sandbox" in word for word in child.cmdline())
    ]


async def eventually(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await wait_until_async(holds)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    found = Sandbox()
    yield found
    found.close()


async def test_a_process_stays_open_for_the_next_tasks(sandbox: Sandbox) -> None:
    task = {"schema": {"type": "integer"}, "value": 1 << 70}

    first = await sandbox.run("schema", task, ONE)
    (process,) = children()
    for _ in range(20):
        assert await sandbox.run("schema", task, ONE) == first == ("FIT", None)

    assert children() == [process]


@pytest.mark.parametrize("task", [endless, exploding])
async def test_a_task_over_a_limit_is_stopped_and_the_next_task_is_done(
    sandbox: Sandbox, task: Any
) -> None:
    with pytest.raises(SandboxLimit, match="too much memory"):
        await sandbox.run("condition", task(), ONE)

    found = await sandbox.run("condition", {"text": "a > 1", "variables": {"a": 2}}, ONE)
    assert found == ("BOOL", True)


async def test_a_task_that_is_too_long_is_refused_unread(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxLimit, match=r"10,000,0.. bytes to read, the limit is 10,000,000"):
        await sandbox.run("schema", {"schema": {}, "value": "x" * MAX_BYTES}, ONE)

    assert children() == []


def script(answer: bytes, length: int | None = None) -> str:
    header = program.HEADER.pack(len(answer) if length is None else length, False)
    return (
        "import sys\nsys.stdin.buffer.read(8)\n"
        f"sys.stdout.buffer.write({header + answer!r})\nsys.stdout.buffer.flush()\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "raise SystemExit(3)",
        "import sys; sys.stdout.write('odd')",
        script(b'["BOOL", true]', length=99),
        *map(script, (b"", b"\xff", b"null", b"[1, 2]", b'["BOOL"]', b'["BOOL", NaN]', b"{}")),
        *map(script, (b'["BOOL", "\\ud800"]', b"[" * 100_000, b'["BOOL", 1' + b"0" * 9999 + b"]")),
    ],
)
async def test_an_odd_answer_fails_its_task_and_nothing_else(
    sandbox: Sandbox, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "odd.py"
    odd.write_text(text, encoding="utf-8")
    task = {"text": "a > 1", "variables": {"a": 2}}

    with monkeypatch.context() as patch:
        patch.setattr(program, "__file__", str(odd))
        with pytest.raises(SandboxLimit):
            await sandbox.run("condition", task, ONE)
    sandbox.close()

    assert await sandbox.run("condition", task, ONE) == ("BOOL", True)


async def test_a_process_that_cannot_be_started_fails_its_task(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")

    with pytest.raises(SandboxLimit, match="cannot be evaluated by another process"):
        await sandbox.run("condition", {"text": "true", "variables": {}}, ONE)


@pytest.mark.parametrize(
    "error", [KeyError("k"), AttributeError(), RecursionError(), TypeError("\ud800"), OSError(2)]
)
def test_any_error_of_a_task_is_an_answer(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setitem(program.TASKS, "condition", fail)

    kind, _ = read_json(program._answer(b'["condition", {}]'))
    assert kind == "ERROR"


async def test_a_task_that_nobody_waits_for_is_stopped(sandbox: Sandbox) -> None:
    waiting = asyncio.create_task(sandbox.run("condition", endless(), ONE))
    await eventually(lambda: len(children()) == 1)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: children() == [])
    assert await sandbox.run("schema", {"schema": {}, "value": 1}, ONE) == ("FIT", None)


async def test_tasks_of_one_run_do_not_hold_up_another_run(sandbox: Sandbox) -> None:
    costly = [asyncio.create_task(sandbox.run("condition", endless(), ONE)) for _ in range(4)]
    await eventually(lambda: len(children()) == 1)

    found = await sandbox.run("schema", {"schema": {}, "value": 1}, OTHER)

    assert found == ("FIT", None)
    assert not any(task.done() for task in costly[1:])
    for task in costly:
        task.cancel()
    await asyncio.gather(*costly, return_exceptions=True)


async def test_an_answer_that_is_too_long_is_not_read(sandbox: Sandbox) -> None:
    task = {"text": "'x'", "variables": {}}

    with pytest.raises(SandboxLimit, match="answer of over 5 bytes"):
        await sandbox.run("condition", task, ONE, max_answer_bytes=5)

    assert children() == []
    assert (await sandbox.run("condition", task, ONE))[1] == "x"


async def test_a_task_ends_at_its_wall_time(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxLimit):
        await sandbox.run("condition", endless(), ONE, wall_s=0.01)

    assert children() == []


async def test_a_process_that_ignores_the_request_to_end_is_killed(sandbox: Sandbox) -> None:
    """A process under SIGSTOP notices no SIGTERM."""
    waiting = asyncio.create_task(sandbox.run("condition", endless(), ONE))
    await eventually(lambda: len(children()) == 1)
    (process,) = children()
    process.suspend()

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: not process.is_running())
    assert await sandbox.run("schema", {"schema": {}, "value": 1}, ONE) == ("FIT", None)


async def test_a_process_that_is_stopped_after_its_answer_takes_no_task(sandbox: Sandbox) -> None:
    task = {"schema": {}, "value": 1}
    await sandbox.run("schema", task, ONE)
    (process,) = children()

    for idle in sandbox._pools["schema"]._idle:
        idle.stop()

    assert await sandbox.run("schema", task, ONE) == ("FIT", None)
    assert not process.is_running()


async def test_queries_and_evaluations_have_places_of_their_own(sandbox: Sandbox) -> None:
    costly = [asyncio.create_task(sandbox.run("condition", endless(), ONE)) for _ in range(4)]
    other = [asyncio.create_task(sandbox.run("condition", endless(), OTHER)) for _ in range(4)]
    await eventually(lambda: len(children()) == 2)
    task = {
        "dialect": "sqlite",
        "address": "file::memory:",
        "query": "SELECT 1 AS a",
        "parameters": {},
        "max_rows": 1,
        "max_bytes": 1000,
        "timeout_s": 60,
    }

    found = await sandbox.run("query", task, ONE)

    assert found == ("ROWS", '{"columns":["a"],"rows":[[1]],"more":false}')
    for waiting in [*costly, *other]:
        waiting.cancel()
    await asyncio.gather(*costly, *other, return_exceptions=True)


async def test_no_process_is_left_when_the_sandbox_is_closed(sandbox: Sandbox) -> None:
    await sandbox.run("schema", {"schema": {}, "value": 1}, ONE)

    sandbox.close()

    assert children() == []


async def test_processes_have_nothing_of_the_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")

    await sandbox.run("schema", {"schema": {}, "value": 1}, ONE)

    (process,) = children()
    assert "OPENAI_API_KEY" not in process.environ()

"""The users of Redis in docs/deployment.md: each role does its own work, and no other work."""

import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import NoPermissionError

from app import Agent, Workflow, WorkflowStatus, enqueue
from app.celery import app as celery
from app.embedded.redis import find_program
from tests.support.pace import scaled
from tests.support.stack import ROOT, client_of, lead_celery_to, run_stack
from tests.support.waiting import wait_until

PAGE = ROOT / "docs" / "deployment.md"
FORBIDDEN: dict[str, list[tuple[Any, ...]]] = {
    "worker": [("FLUSHALL",), ("CONFIG", "GET", "*"), ("SHUTDOWN",), ("KEYS", "*")],
    "client": [
        *(("FLUSHALL",), ("KEYS", "*"), ("LPUSH", "openai", "x"), ("SET", "agentchord:epoch", "x")),
        ("SET", "agentchord:answers:{a}", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
    ],
    "flower": [
        ("FLUSHDB",),
        ("LPUSH", "openai", "x"),
        ("SET", "agentchord:answers:{a}", "x"),
        ("HSET", "h", "a", "b"),
    ],
}


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis with the users of the page; the passwords are those of the page."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    users = re.findall(r"^user .+$", PAGE.read_text(), re.MULTILINE)
    (tmp_path / "users.acl").write_text("\n".join(["user default off", *users]))
    options = ("--bind", "127.0.0.1", "--save", "", "--aclfile", str(tmp_path / "users.acl"))
    with subprocess.Popen(
        [find_program().path, "--port", str(port), *options],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: listens(port), what="Redis listens")
            yield port
        finally:
            process.terminate()


def url_of(role: str, port: int) -> str:
    return f"redis://{role}:{role.upper()}_PASSWORD@127.0.0.1:{port}/0"


def listens(port: int) -> bool:
    try:
        with Redis.from_url(url_of("worker", port)) as redis:
            return bool(redis.ping())
    except Unreachable:
        return False


def test_each_role_does_its_own_work_and_no_other(
    redis_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stack").mkdir()
    agent = Agent(name="a", prompt_template="go", llm_config={"model": "gpt-4o-mini"}, cache=True)
    worker, client = (url_of(role, redis_port) for role in ("worker", "client"))

    with run_stack(tmp_path / "stack", REDIS_URL=worker) as stack:
        of_client = replace(
            stack,
            urls=replace(stack.urls, redis_url=client),
            overrides={},
        )
        with client_of(of_client, monkeypatch):
            runs = [enqueue(Workflow(name="roles", agents=[agent])) for _ in range(2)]
            ends = [run.wait(scaled(60)) for run in runs]
        lead_celery_to(url_of("flower", redis_port))
        control: Any = celery.control
        answers = control.inspect(timeout=scaled(60), limit=1).active_queues()

    assert ends == [WorkflowStatus.COMPLETED] * 2
    assert answers
    for role, commands in FORBIDDEN.items():
        with Redis.from_url(url_of(role, redis_port)) as redis:
            for command in commands:
                with pytest.raises(NoPermissionError):
                    redis.execute_command(*command)

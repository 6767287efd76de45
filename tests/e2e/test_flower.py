"""Flower for operators: every agent is a task, and every page needs a password."""

import json
import re
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from app import Agent, Run, Workflow, enqueue
from app.examples import erp
from tests.support.pace import scaled
from tests.support.stack import Stack, search_path
from tests.support.waiting import wait_until

READY_S = scaled(60.0)
RUNTIME_S = scaled(60.0)


@dataclass(frozen=True)
class Flower:
    """A running Flower."""

    port: int
    account: str

    def get(self, path: str, account: str | None = None) -> tuple[int, str]:
        """Status and text of a page; 0 while nothing listens."""
        words = self.account if account is None else account
        header = {"Authorization": f"Basic {b64encode(words.encode()).decode()}"} if words else {}
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urlopen(Request(url, headers=header), timeout=scaled(10)) as page:
                return int(page.status), page.read().decode()
        except HTTPError as error:
            with error:
                return error.code, ""
        except OSError:
            return 0, ""

    def json(self, path: str) -> Any:
        status, text = self.get(path)
        return json.loads(text) if status == 200 else {}

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The agents of a run, by name of the task."""
        found = self.json("/api/tasks?limit=1000")
        return {
            task["name"]: task
            for task in found.values()
            if run_id in (task["kwargs"] or "") and task["name"].startswith("agent.")
        }


@contextmanager
def running(stack: Stack, folder: Path, *words: str) -> Iterator[Flower]:
    """Flower as the plain Celery command, in an empty folder, once it hears the workers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "flower.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "app", "flower", f"--port={port}", *words],
            cwd=folder,
            env={"PATH": "/usr/bin", "PYTHONPATH": search_path(), **stack.environment},
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            printed = wait_until(
                lambda: re.search(r"user (\S+), password (\S+)", log.read_text()),
                timeout_s=READY_S,
                what="Flower prints its password",
            )
            assert printed is not None
            flower = Flower(port, f"{printed[1]}:{printed[2]}")
            wait_until(
                lambda: any(flower.json("/api/workers?status=1").values()),
                timeout_s=READY_S,
                what="Flower hears the worker",
            )
            yield flower
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def flower(running_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """One for all tests here: its start, and asking the workers for events, takes seconds."""
    with running(running_stack, tmp_path_factory.mktemp("flower")) as flower:
        yield flower


def test_every_agent_of_the_erp_example_is_a_task_with_its_state_and_runtime(
    stack: Stack, flower: Flower
) -> None:
    key = "sk-planted-0123456789abcdef0123456789"
    secret = "the candidate is called Zebulon Quux"
    run = enqueue(erp.WORKFLOW, erp.INPUT | {"resume": f"{secret}, {key}"})

    assert run.wait(timeout=RUNTIME_S) == "completed"
    results = run.results
    tasks = wait_until(
        lambda: (
            found
            if len(found := flower.tasks(run.id)) == 12
            and all(task["state"] == "SUCCESS" for task in found.values())
            else None
        ),
        timeout_s=READY_S,
        what="Flower knows the end of every agent",
    )
    assert tasks is not None

    assert tasks.keys() == {f"agent.{name}" for name in results}
    for name, result in results.items():
        task = tasks[f"agent.{name}"]
        assert task["uuid"] == result.agent_id
        assert task["received"] <= task["started"] <= task["succeeded"]
        assert task["runtime"] == pytest.approx(result.execution_time, abs=0.25)
        assert float(task["result"].removeprefix("$")) == pytest.approx(result.cost)
        assert result.metadata["model"] in task["kwargs"]
        assert task["worker"] in flower.json("/api/workers?status=1")
    assert asked_for_without_a_password(flower) == {401}
    shown = everything_of(flower, [result.agent_id for result in results.values()])
    outputs = [text for text in run.outputs.values() if isinstance(text, str)]
    assert "executive_summary" in shown
    assert [text for text in (secret, key, "sk-planted", *outputs) if text in shown] == []
    assert stack.environment["OPENAI_API_KEY"] not in shown


def test_failures_retries_lists_and_what_never_started_are_told_without_their_texts(
    stack: Stack, flower: Flower
) -> None:
    words = "[[sim:status=400]] tell nobody about Project Zephyr"
    run = enqueue(
        Workflow(
            name="mixed",
            agents=[
                agent("flaky", "[[sim:status=500,times=1]]"),
                agent("broken", words),
                agent("behind", "{broken}", dependencies=["broken"]),
                agent("each", "Read {item}", for_each="documents"),
            ],
            allow_partial_completion=True,
        ),
        input={"documents": ["one", "two"]},
    )

    assert run.wait(timeout=RUNTIME_S) == "partially_completed"
    expected = {"flaky": "SUCCESS", "broken": "FAILURE", "behind": "REVOKED", "each": "SUCCESS"}
    wait_until(
        lambda: {n: t["state"] for n, t in by_id(flower, run).items()} == expected,
        timeout_s=READY_S,
        what="Flower knows the end of every agent",
    )
    tasks = by_id(flower, run)

    assert (tasks["flaky"]["retries"], tasks["flaky"]["exception"]) == (1, None)
    assert tasks["broken"]["exception"] == "BadRequest"
    assert tasks["behind"]["started"] is None
    ids = [result.agent_id for result in run.results.values()]
    assert "Zephyr" not in everything_of(flower, ids)


def agent(name: str, prompt: str, **fields: Any) -> Agent:
    config = {"model": "gpt-4o-mini", "max_tokens": 20}
    return Agent(name=name, prompt_template=prompt, llm_config=config, **fields)


def by_id(flower: Flower, run: Run) -> dict[str, dict[str, Any]]:
    """The task of each agent of a run, by the agent's name."""
    found = flower.json("/api/tasks?limit=1000")
    results = run.results.items()
    return {
        name: found[result.agent_id]
        for name, result in results
        if result.agent_id in found and "[" not in name
    }


def asked_for_without_a_password(flower: Flower) -> set[int]:
    pages = ("/", "/workers", "/tasks", "/api/tasks", "/api/workers", "/broker", "/metrics")
    wrong = ("", "agentchord:", "agentchord:guessed")
    return {flower.get(page, account)[0] for page in pages for account in wrong}


def everything_of(flower: Flower, ids: list[str]) -> str:
    """All text of Flower about workers and agents."""
    workers = flower.json("/api/workers")
    pages = ["/", "/tasks", "/api/tasks?limit=1000", "/api/workers?refresh=1", "/metrics"]
    pages += [f"/worker/{name}" for name in workers]
    pages += [page for id_ in ids for page in (f"/task/{id_}", f"/api/task/info/{id_}")]
    read = [flower.get(page) for page in pages]
    assert {status for status, _ in read} == {200}
    return "\n".join(text for _, text in read)

"""A provider whose tokens come from a function of the configuration, on a whole stack."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from app import Agent, Workflow, WorkflowStatus, enqueue
from app.client.run import Run
from tests.support.pace import scaled
from tests.support.stack import ALL_QUEUES, Stack, client_of, run_stack
from tests.support.token_server import TokenServer, token_server_in_thread

AGENTS = 12
CONFIGURATION = """\
providers:
  acme:
    protocol: openai
    base_url: {url}/v1
    credentials: tests.support.cloud_tokens:token
    models: ["acme-*"]
rate_limits: {{acme: {{default: {{concurrent_requests: 100}}}}}}
costs: {{default_input_cost: 0.001, default_output_cost: 0.002}}
retry: {{strategy: constant_delay, base_delay: 0.05, jitter: false}}
"""


@dataclass
class Served:
    """A stack, and the server that issues and accepts its tokens."""

    stack: Stack
    server: TokenServer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("credentials")
    with (
        pytest.MonkeyPatch.context() as patch,
        token_server_in_thread() as server,
        run_stack(
            folder,
            *(*ALL_QUEUES, "acme"),
            configuration=CONFIGURATION.format(url=server.url),
            TOKEN_SERVER=server.url,
        ) as stack,
        client_of(stack, patch),
    ):
        yield Served(stack, server)


def finished(name: str, *, stream: bool = False) -> Run:
    config = {"model": "acme-large", "max_tokens": 50, "stream": stream}
    agents = [
        Agent(name=f"a{number}", prompt_template="go", llm_config=config, max_retries=1)
        for number in range(AGENTS)
    ]
    run = enqueue(Workflow(name=name, agents=agents))
    run.wait(timeout=scaled(30))
    return run


def entries(served: Served, run: Run) -> list[dict[str, Any]]:
    return served.stack.sql(
        "SELECT kind, outcome, output_tokens, cost_usd FROM cost_entries WHERE run_id = %s", run.id
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_rejected_tokens_are_renewed_once_and_every_call_is_booked_once(
    served: Served, stream: bool
) -> None:
    server = served.server
    finished("before", stream=stream)
    issued, rejected, accepted = len(server.issued), len(server.rejected), len(server.accepted)
    assert issued > 0

    server.valid.clear()
    run = finished("after", stream=stream)

    booked = entries(served, run)
    assert run.status is WorkflowStatus.COMPLETED
    assert len(server.issued) == issued + 1
    assert 1 <= len(server.rejected) - rejected <= AGENTS
    assert len(server.accepted) == accepted + AGENTS
    assert [(entry["kind"], entry["outcome"], entry["output_tokens"]) for entry in booked] == [
        ("actual", "ok", 10)
    ] * AGENTS
    assert run.cost == sum(entry["cost_usd"] for entry in booked)
    assert served.stack.sql("SELECT count(*) AS holds FROM holds") == [{"holds": 0}]


def test_without_a_token_agents_are_retried_and_fail_with_the_remedy(served: Served) -> None:
    server = served.server
    finished("before")
    accepted = len(server.accepted)
    server.valid.clear()
    server.broken = True
    try:
        run = finished("broken")
    finally:
        server.broken = False

    results = [
        result
        for result in run.results.values()
        if result.metadata["error_class"] != "RunStopped"  # the run fails with its first agent
    ]
    assert run.status is WorkflowStatus.FAILED
    assert {result.metadata["error_class"] for result in results} == {"CredentialsFailed"}
    assert {result.retry_count for result in results} == {1}
    assert all("tests.support.cloud_tokens:token" in str(result.error) for result in results)
    assert entries(served, run) == [] or {entry["cost_usd"] for entry in entries(served, run)} == {
        0
    }
    assert len(server.accepted) == accepted
    assert served.stack.sql("SELECT count(*) AS holds FROM holds") == [{"holds": 0}]


def test_doctor_calls_the_function_and_shows_no_token(served: Served) -> None:
    done = served.stack.command("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    served.server.broken = True
    broken = served.stack.command("doctor", "--json")
    served.server.broken = False
    warned = {check["name"]: check for check in json.loads(broken.stdout)}

    path = "tests.support.cloud_tokens:token"
    assert checks["acme key"]["level"] == "ok"
    assert checks["acme key"]["finding"].startswith(f"{path} gave a token for 3,600 s, served at")
    assert warned["acme key"]["level"] == "warn"
    assert f"repair the function {path}, which raised HTTPError" in warned["acme key"]["finding"]
    assert shows_no_token(served, done.stdout + done.stderr + broken.stdout + broken.stderr)


def test_no_log_no_explanation_and_no_row_has_a_token(served: Served) -> None:
    served.server.refusing = True
    try:
        run = finished("refused")
    finally:
        served.server.refusing = False

    explained = served.stack.command("explain", str(run.id))
    logs = "".join(worker.log.read_text() for worker in served.stack.workers)
    stored = rows(served)
    for text in (explained.stdout, stored):
        assert "the token [redacted] is not valid" in " ".join(text.split())
    assert shows_no_token(served, explained.stdout + logs + stored)


def rows(served: Served) -> str:
    """Return all rows of all tables as text."""
    tables = served.stack.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return "".join(
        str(
            served.stack.sql(f'SELECT row_to_json(t)::text AS row FROM "{table["tablename"]}" AS t')
        )
        for table in tables
    )


def shows_no_token(served: Served, text: str) -> bool:
    return not any(token in text for token in served.server.issued)

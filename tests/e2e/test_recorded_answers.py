"""Recorded answers of real providers on real workers: the ledger has what each answer counts."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import Agent, Workflow, enqueue
from app.concurrency.loop_thread import LoopThread
from tests.support.answers import Recorded, answering, corpus
from tests.support.pace import scaled
from tests.support.stack import ALL_QUEUES, Stack, client_of, run_stack

CONFIGURATION = """\
providers:
  recorded-openai: {{protocol: openai, base_url: {url}/v1, api_key_env: RECORDED_KEY}}
  recorded-responses:
    {{protocol: openai, api: responses, base_url: {url}/v1, api_key_env: RECORDED_KEY}}
  recorded-anthropic: {{protocol: anthropic, base_url: {url}, api_key_env: RECORDED_KEY}}
costs:
  model_prices:
    "recorded-openai/*": {prices}
    "recorded-responses/*": {prices}
    "recorded-anthropic/*": {prices}
rate_limits:
  recorded-openai: {{default: {{requests_per_minute: 60000, burst: 1000}}}}
  recorded-responses: {{default: {{requests_per_minute: 60000, burst: 1000}}}}
  recorded-anthropic: {{default: {{requests_per_minute: 60000, burst: 1000}}}}
circuit_breaker: {{min_failures: 100000}}
"""
PRICES = (
    "[{input: 1, cached_input: 0.1, cache_write: 1.25, cache_write_1h: 2, output: 10,"
    " citation: 2, web_searches: 10, max_citation_tokens: 20000, max_web_searches: 100}]"
)
#: Answers with more tokens have been left out, because their prompts take long to store.
MOST_TOKENS = 2000
MANY = 200
#: The Responses API takes no smaller max_tokens.
LEAST = 16
#: These errors pause all calls to their provider, as does every error with a time to wait.
PAUSING = ("RateLimited", "Overloaded")


def told() -> list[Recorded]:
    """The answers that cost what they count, and that need no tools."""
    return [
        recorded
        for recorded in corpus()
        if "dollars" in recorded.expect
        and "same_form_as" not in recorded.shape
        and recorded.shape["request"].get("max_tokens", LEAST) >= LEAST
        and recorded.expect.get("error") not in PAUSING
        and "retry_after" not in json.dumps(recorded.shape)
        and recorded.expect.get("finish") != "tool_calls"
        and not recorded.tools
        and sum(recorded.expect.get("tokens", {}).values()) < MOST_TOKENS
    ]


@pytest.fixture(scope="module")
def recorded_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("recorded")
    shapes = {recorded.name: recorded.shape for recorded in corpus()}
    loop, server = LoopThread("recorded answers"), answering(shapes)
    url = loop.run(server.__aenter__())
    text = CONFIGURATION.format(url=url, prices=PRICES)
    queues = (*ALL_QUEUES, *(f"recorded-{name}" for name in ("openai", "responses", "anthropic")))
    with (
        pytest.MonkeyPatch.context() as patch,
        run_stack(folder, *queues, configuration=text, RECORDED_KEY="sk-recorded") as stack,
        client_of(stack, patch),
    ):
        yield stack
    loop.run(server.__aexit__(None, None, None))
    loop.close()


def workflow(recorded: Recorded) -> Workflow:
    config: dict[str, Any] = {
        "provider": f"recorded-{recorded.protocol}",
        "model": recorded.shape["request"]["model"],
        "stream": recorded.streamed,
    }
    if most := recorded.shape["request"].get("max_tokens"):
        config["max_tokens"] = most
    agent = Agent(
        name="a", prompt_template=recorded.prompt, llm_config=config, max_retries=0, cost_limit=99
    )
    return Workflow(name=recorded.name.replace("/", " "), agents=[agent], cost_budget=99)


@pytest.mark.timeout(300)
def test_the_ledger_has_the_dollars_of_every_answer(recorded_stack: Stack) -> None:
    answers: Sequence[Recorded] = told()

    runs = [enqueue(workflow(recorded)) for recorded in answers]
    for run in runs:
        run.wait(timeout=scaled(240))

    rows = recorded_stack.sql("SELECT run_id, cost_usd, kind FROM cost_entries")
    booked = {str(row["run_id"]): row["cost_usd"] for row in rows}
    expected = {recorded.name: Decimal(recorded.expect["dollars"]) for recorded in answers}
    found = {
        recorded.name: booked[str(run.id)] for recorded, run in zip(answers, runs, strict=True)
    }
    assert len(rows) == len(answers) > MANY
    assert found == expected
    assert sum(row["cost_usd"] for row in rows) == sum(expected.values())
    # An entry is an estimate if the answer names a tier or a region without a price.
    assert {row["kind"] for row in rows} <= {"actual", "estimated"}

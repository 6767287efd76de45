"""`agentchord limits` on a busy cluster: its output, and the way of changes to the workers."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app import Agent, EngineConfig, OrchestrationEngine, RateLimitConfig, Run, Workflow, enqueue
from app.domain.status import WorkflowStatus
from app.errors import ConfigurationError
from app.llm.openai import OpenAIClient
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import Stack
from tests.support.waiting import wait_until

MODEL = "gpt-4.1-nano"
BUCKET = f"openai/{MODEL}*"
#: Agents of a run that crawls, and the seconds that it would take at 30 requests a minute.
CRAWLING, CRAWL_S = 40, 76


@pytest.fixture
def stored(stack: Stack) -> Iterator[Stack]:
    """The stack; limits that the test stores are forgotten after it."""
    yield stack
    stack.sql("DELETE FROM rate_limits")


def cli(stack: Stack, *words: str) -> tuple[int, str, str]:
    done = stack.command("limits", *words)
    return done.returncode, done.stdout, done.stderr


def buckets(stack: Stack) -> dict[str, Any]:
    code, out, err = cli(stack, "--json")
    assert code == 0, err
    return {bucket["bucket"]: bucket for bucket in json.loads(out)}


def set_limits(stack: Stack, *values: str) -> dict[str, Any]:
    """Set limits of the model's bucket, and return the bucket after that."""
    code, out, err = cli(stack, "set", "openai", "--model", f"{MODEL}*", *values, "--json")
    assert code == 0, err
    (bucket,) = json.loads(out)
    return dict(bucket)


def start(agents: int, *, model: str = MODEL) -> Run:
    """A run of this number of independent agents."""
    config = {"model": model, "max_tokens": 20}
    members = [
        Agent(name=f"a{number}", prompt_template="go", llm_config=config)
        for number in range(agents)
    ]
    return enqueue(Workflow(name=f"crowd {agents}", agents=members, max_parallel_agents=100))


def served(stack: Stack) -> int:
    return int(stack.simulator.summary()["requests"])


def test_limits_set_during_a_run_that_crawls_speed_it_up_at_once(stored: Stack) -> None:
    set_limits(stored, "requests_per_minute=30", "burst=1")
    run = start(CRAWLING)
    wait_until(lambda: served(stored) >= 2, timeout_s=scaled(20))

    set_limits(stored, "requests_per_minute=60000", "burst=100")
    told_s = time.monotonic()
    run.wait(timeout=scaled(30))

    assert run.status == WorkflowStatus.COMPLETED
    assert time.monotonic() - told_s < min(at_this_pace(3), CRAWL_S / 2)


def test_a_lost_signal_costs_only_seconds(stored: Stack) -> None:
    set_limits(stored, "requests_per_minute=30", "burst=1")
    run = start(CRAWLING)
    wait_until(lambda: served(stored) >= 2, timeout_s=scaled(20))

    stored.sql('UPDATE rate_limits SET limits = \'{"requests_per_minute": 60000, "burst": 100}\'')
    run.wait(timeout=min(scaled(10), CRAWL_S / 2))

    assert run.status == WorkflowStatus.COMPLETED


def test_limits_that_are_forgotten_are_the_configured_ones_again(stored: Stack) -> None:
    set_limits(stored, "requests_per_minute=30", "burst=1")
    run = start(30)
    wait_until(lambda: served(stored) >= 2, timeout_s=scaled(20))

    code, _, err = cli(stored, "reset", "openai", "--model", f"{MODEL}*")
    run.wait(timeout=scaled(10))

    assert code == 0
    assert f"forgot burst, requests_per_minute of {BUCKET}" in err
    assert run.status == WorkflowStatus.COMPLETED


def test_a_new_bucket_of_a_model_knows_what_the_model_has_used(stored: Stack) -> None:
    model = "gpt-4.1-mini"
    assert start(20, model=model).wait(timeout=scaled(20)) == WorkflowStatus.COMPLETED
    code, _, err = cli(stored, "set", "openai", "--model", model, "requests_per_hour=10")

    run = start(5, model=model)
    wait_until(lambda: (buckets(stored)[f"openai/{model}"]["state"] or {}).get("waiting") == 5)

    assert (code, err) == (0, "")
    assert served(stored) == 20
    run.cancel()
    run.wait(timeout=scaled(10))


def test_every_bucket_is_shown_with_its_state_and_where_its_limits_come_from(
    stored: Stack,
) -> None:
    before = set_limits(stored, "requests_per_minute=30", "burst=1", "tokens_per_minute=none")
    run = start(10)
    wait_until(lambda: served(stored) >= 1, timeout_s=scaled(20))

    live = buckets(stored)[BUCKET]
    _, shown, _ = cli(stored)
    run.cancel()
    run.wait(timeout=scaled(10))

    assert before["limits"]["tokens_per_minute"]["source"] == "stored"
    assert live["state"]["waiting"] >= 1
    assert live["state"]["concurrency"] == 500
    minute = live["limits"]["requests_per_minute"]
    assert (minute["value"], minute["source"], minute["live"]["limit"]) == (30, "stored", 30)
    assert live["limits"]["concurrent_requests"]["source"] == "configuration"
    assert live["limits"]["concurrent_requests"]["inherited"]
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert f"{BUCKET} tokens_per_minute unlimited stored" in lines
    assert f"{BUCKET} concurrent_requests 500 configuration, default" in lines
    assert any(line.startswith(f"{BUCKET} requests_per_minute 30 stored") for line in lines)


def test_who_waits_longer_than_a_minute_is_told(stored: Stack) -> None:
    set_limits(stored, "requests_per_minute=30", "burst=1")
    run = start(20)
    wait_until(lambda: served(stored) >= 1, timeout_s=scaled(20))

    _, _, err = cli(stored, "set", "openai", "--model", f"{MODEL}*", "requests_per_minute=6")
    run.cancel()
    run.wait(timeout=scaled(10))

    assert f"requests wait for {BUCKET}: at 6 a minute the last request starts in about" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["set", "opnai", "burst=1"], "there is no provider 'opnai'"),
        (["set", "openai", "requests_per_minuet=1"], "did you mean 'requests_per_minute'?"),
        (
            ["set", "openai", "burst=0"],
            "burst is 0: give a whole number from 1 to 1,000,000,000,000",
        ),
        (["reset", "openai", "brust"], "did you mean 'burst'?"),
    ],
)
def test_what_cannot_be_set_is_refused_in_one_line(
    stored: Stack, words: list[str], message: str
) -> None:
    code, out, err = cli(stored, *words)

    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_what_is_not_stored_is_said_so(stored: Stack) -> None:
    code, _, err = cli(stored, "reset", "anthropic", "burst")

    assert code == 0
    assert "nothing was stored for anthropic/default" in err


def test_an_engine_is_held_to_the_stored_limits(stored: Stack) -> None:
    stored.sql("""
        INSERT INTO rate_limits (provider, model, limits)
        VALUES ('openai', 'default', '{"concurrent_requests": 7}')
    """)
    refused, accepted = (
        EngineConfig(rate_limit_config=RateLimitConfig(concurrent_requests=number))
        for number in (8, 7)
    )
    client = OpenAIClient(api_key="any")

    with pytest.raises(ConfigurationError, match=r"concurrent_requests is 8, .* is 7"):
        OrchestrationEngine(client, refused)
    OrchestrationEngine(client, accepted)

"""Streaming agents on real workers: whole runs, and the cost of streams that break off."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.examples.tools import check_total
from tests.support.ledgers import assert_ledgers_agree, dollars_of
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
# One model of each request form.
MODELS = ("gpt-4o-mini", "gpt-4o", "claude-haiku-4-5")
FORMS = {"gpt-4o": {"api": "responses"}}
WAIT_S = scaled(30.0)
SLOW = "[[sim:latency=25,output_tokens=350]]"


def agent(
    name: str, model: str, prompt: str, *, stream: bool = True, thinking: Any = None, **fields: Any
) -> Agent:
    config = {"model": model, "max_tokens": 400, "stream": stream, **FORMS.get(model, {})}
    return Agent(
        name=name,
        prompt_template=prompt,
        llm_config=config | ({"thinking": thinking} if thinking else {}),
        **{"retry_policy": AT_ONCE, **fields},
    )


def one_each(prompt: str, *, models: Sequence[str] = MODELS, **fields: Any) -> Workflow:
    """The same agent in every form; the simulator counts ``times`` by prompt."""
    agents = [
        agent(f"a{n}", model, f"{model}: {prompt}", **fields) for n, model in enumerate(models)
    ]
    return Workflow(name="streams", agents=agents)


def entries_of(stack: Stack, run: Run) -> list[dict[str, Any]]:
    return stack.sql("SELECT * FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)


def assert_settled_once(stack: Stack, run: Run) -> list[dict[str, Any]]:
    """Every call has one entry, within its hold; the budget is the sum of these entries."""
    entries = entries_of(stack, run)
    assert len({entry["call_id"] for entry in entries}) == len(entries)
    assert len(entries) == len(stack.simulator.ledger())
    (budget,) = stack.sql("SELECT * FROM budgets WHERE id = %s", run.id)
    assert budget["spent_usd"] == sum(entry["cost_usd"] for entry in entries) == run.cost
    assert budget["held_usd"] == budget["overdrawn_usd"] == 0
    assert "call_above_its_hold" not in stack.workers[0].log.read_text()
    return entries


def sent_tokens(stack: Stack) -> list[int]:
    return [record["output_tokens"] for record in stack.simulator.ledger()]


def test_a_tool_loop_is_the_same_with_streamed_answers(stack: Stack) -> None:
    prompt = "Use check_total. [[sim:tool_turns=2,cached_tokens=5]]"
    streamed, whole = (
        enqueue(one_each(prompt, stream=stream, tools=[check_total])) for stream in (True, False)
    )

    assert streamed.wait(timeout=WAIT_S) == whole.wait(timeout=WAIT_S) == "completed"

    assert streamed.outputs == whole.outputs
    assert streamed.cost == whole.cost
    entries = entries_of(stack, streamed)
    assert Counter((entry["kind"], entry["outcome"]) for entry in entries) == {("actual", "ok"): 9}
    assert sum(record["streamed"] for record in stack.simulator.ledger()) == 9


@pytest.mark.parametrize(
    ("fault", "outcome"), [("cut_stream", "ConnectionFailed"), ("stream_error", "ServerFailure")]
)
def test_an_agent_whose_stream_breaks_off_is_tried_again_and_pays_for_both(
    stack: Stack, fault: str, outcome: str
) -> None:
    run = enqueue(one_each(f"Go on. [[sim:{fault},times=1]] [[sim:output_tokens=300]]"))

    assert run.wait(timeout=WAIT_S) == "completed"

    entries = assert_settled_once(stack, run)
    kinds = Counter((entry["kind"], entry["outcome"]) for entry in entries)
    # A response that has failed tells its usage.
    told = int(fault == "stream_error")
    assert kinds == Counter(
        {("estimated", outcome): 3 - told, ("actual", outcome): told, ("actual", "ok"): 3}
    )
    served = {record["request_id"]: record for record in stack.simulator.ledger()}
    for entry in entries:
        record = served[entry["request_id"]]
        assert entry["model_answered"] == entry["model"]
        assert entry["output_tokens"] <= 400
        if entry["kind"] == "estimated":
            assert 100 < record["output_tokens"] < 300
            assert entry["cost_usd"] > dollars_of(record)
            if entry["provider"] == "anthropic":
                assert entry["input_tokens"] == record["input_tokens"]
    assert {result.retry_count for result in run.results.values()} == {1}


def test_an_estimate_has_the_prices_of_the_parts_that_the_provider_has_told(stack: Stack) -> None:
    told = "[[sim:cached_tokens=900,cache_write_tokens=60,output_tokens=200]]"
    run = enqueue(one_each(f"{'contract ' * 500} [[sim:cut_stream,times=1]] {told}"))

    assert run.wait(timeout=WAIT_S) == "completed"

    estimates = {e["model"]: e for e in entries_of(stack, run) if e["kind"] == "estimated"}
    claude = estimates["claude-haiku-4-5"]
    assert (claude["cached_tokens"], claude["cache_write_tokens"]) == (900, 60)
    assert claude["usage"]["cache_read_input_tokens"] == 900
    for model in ("gpt-4o-mini", "gpt-4o"):
        assert estimates[model]["cached_tokens"] == 0
        assert estimates[model]["input_tokens"] > 4000


def test_reasoning_that_nobody_sees_is_booked_in_full_and_pricing_again_finds_the_same(
    stack: Stack,
) -> None:
    broken = "Think. [[sim:cut_stream,times=1]]"
    agents = [
        agent("openai", "gpt-6.1-terra", f"openai: {broken}"),
        agent(
            "anthropic", "claude-sonnet-5", f"anthropic: {broken}", thinking={"type": "adaptive"}
        ),
    ]
    run = enqueue(Workflow(name="streams", agents=agents))

    assert run.wait(timeout=WAIT_S) == "completed"

    entries = assert_settled_once(stack, run)
    estimates = {e["provider"]: e for e in entries if e["kind"] == "estimated"}
    assert [estimate["output_tokens"] for estimate in estimates.values()] == [400, 400]
    # This model writes its cache by default, at a price above that of fresh tokens.
    assert estimates["openai"]["cache_write_tokens"] > 0
    again = stack.command("costs", "reprice", run.id, "--json", "--dry-run")
    assert json.loads(again.stdout)["changes"] == []


def test_cancelling_a_run_closes_its_streams_and_books_what_had_come(stack: Stack) -> None:
    run = enqueue(one_each(SLOW))
    wait_until(
        lambda: len(tokens := sent_tokens(stack)) == 3 and min(tokens) > 10,
        what="all streams are under way",
    )
    cancelled_at = time.monotonic()

    run.cancel()

    assert run.wait(timeout=WAIT_S) == "cancelled"
    assert time.monotonic() - cancelled_at < at_this_pace(10)
    entries = assert_settled_once(stack, run)
    assert [(e["kind"], e["outcome"]) for e in entries] == [("estimated", "CancelledError")] * 3
    assert all(10 < entry["output_tokens"] < 400 for entry in entries)


def test_an_agents_timeout_ends_its_stream_and_books_what_had_come(stack: Stack) -> None:
    run = enqueue(one_each(SLOW, timeout=1.5, retry_policy=None, max_retries=0))

    run.wait(timeout=WAIT_S)

    assert {result.status.value for result in run.results.values()} == {"failed"}
    entries = assert_settled_once(stack, run)
    assert [(e["kind"], e["outcome"]) for e in entries] == [("estimated", "TimeoutError")] * 3
    assert all(entry["output_tokens"] < 400 for entry in entries)


def test_a_stream_that_breaks_off_after_its_usage_is_booked_as_the_provider_counts(
    stack: Stack,
) -> None:
    # Seven events in 6 s with Anthropic, five with OpenAI: the usage comes 1.0 and 1.5 s before
    # the last one, and the timeout between them. In the Responses API the last event has the usage.
    prompt = "Slow. [[sim:latency=6,output_tokens=4]]"
    run = enqueue(
        one_each(prompt, models=MODELS[::2], timeout=5.5, retry_policy=None, max_retries=0)
    )

    run.wait(timeout=WAIT_S)

    entries = assert_settled_once(stack, run)
    assert [(e["kind"], e["outcome"]) for e in entries] == [("actual", "TimeoutError")] * 2
    assert [entry["output_tokens"] for entry in entries] == [4, 4]


def test_a_stream_that_never_begins_is_booked_at_its_worst_case(stack: Stack) -> None:
    run = enqueue(one_each("[[sim:hang]]", timeout=0.7, retry_policy=None, max_retries=0))

    run.wait(timeout=WAIT_S)

    entries = assert_settled_once(stack, run)
    assert {entry["kind"] for entry in entries} == {"unconfirmed"}


def test_a_stream_may_be_slow_and_still_be_whole(stack: Stack) -> None:
    stack.simulator.configure(faults=[{"kind": "slow", "delay": 1.0}])
    run = enqueue(one_each("Slowly. [[sim:output_tokens=60]]"))

    assert run.wait(timeout=WAIT_S) == "completed"

    assert {entry["kind"] for entry in assert_settled_once(stack, run)} == {"actual"}


def test_many_streams_that_break_off_at_random_leave_one_entry_each(stack: Stack) -> None:
    stack.simulator.configure(
        seed=7,
        latency_s=0.05,
        faults=[
            {"kind": "cut_stream", "rate": 0.2},
            {"kind": "stream_error", "status": 529, "rate": 0.2},
            {"kind": "drop", "rate": 0.05},
            {"kind": "garbage", "rate": 0.05},
        ],
    )
    patient = RetryPolicy(strategy=RetryStrategy.IMMEDIATE, max_retries=30)
    agents = [
        agent(
            f"a{n}",
            MODELS[n % 3],
            f"{n}: use check_total",
            retry_policy=patient,
            tools=[check_total],
        )
        for n in range(30)
    ]

    run = enqueue(Workflow(name="streams", agents=agents))

    assert run.wait(timeout=scaled(60)) == "completed"
    kinds = Counter(entry["kind"] for entry in assert_settled_once(stack, run))
    assert kinds["actual"] >= 60
    assert kinds["estimated"] > 10


def test_a_stopped_worker_gives_its_streams_back_and_books_what_had_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = CONFIGURATION.replace("drain_grace_s: 3", "drain_grace_s: 0.3")
    with (
        run_stack(tmp_path, "scheduler", configuration=hasty) as stack,
        client_of(stack, monkeypatch),
    ):
        with stack.worker("openai", "anthropic"):
            run = enqueue(one_each(f"{SLOW[:-2]},times=1]]"))
            wait_until(
                lambda: len(tokens := sent_tokens(stack)) == 3 and min(tokens) > 10,
                what="all streams are under way",
            )
        with stack.worker("openai", "anthropic"):
            assert run.wait(timeout=WAIT_S) == "completed"

        entries = assert_settled_once(stack, run)
        kinds = Counter((entry["kind"], entry["outcome"]) for entry in entries)
        assert kinds == {("estimated", "CancelledError"): 3, ("actual", "ok"): 3}
        assert_ledgers_agree(entries, stack.simulator.ledger())

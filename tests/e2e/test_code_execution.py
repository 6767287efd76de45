"""Agents whose provider runs programs; after each test the ledger is not below the simulator's."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.errors import UnknownModel, WorkflowError
from app.examples.tools import check_total
from tests.support.ledgers import assert_ledgers_agree, dollars_of
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

CLAUDE, NEWEST, GPT = "claude-haiku-4-5", "claude-sonnet-5", "gpt-6.1-terra"
PROGRAM = {"server": "code_execution"}
AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
WAIT_S = scaled(30.0)
# The idle time of the provider, and the minute in which the call ended.
BOOKED_S = {CLAUDE: 6 * 60, GPT: 21 * 60}
HOUR_USD = {CLAUDE: Decimal("0.05"), GPT: Decimal("0.09")}


def agent(name: str, prompt: str, **fields: Any) -> Agent:
    config = {"max_tokens": 400, **fields.pop("llm_config")}
    fields = {"tools": [PROGRAM], "cost_limit": 5.0, "retry_policy": AT_ONCE, **fields}
    return Agent(name=name, prompt_template=prompt, llm_config=config, **fields)


def run_to_end(*agents: Agent) -> Run:
    run = enqueue(Workflow(name="programs", agents=list(agents)))
    run.wait(timeout=WAIT_S)
    return run


def entries_of(stack: Stack, run: Run) -> list[dict[str, Any]]:
    return stack.sql("SELECT * FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_programs_are_booked_with_the_longest_time_of_their_container(
    stack: Stack, model: str, stream: bool
) -> None:
    run = run_to_end(
        agent("a", "Compute. [[sim:programs=2]]", llm_config={"model": model, "stream": stream})
    )

    (entry,) = entries_of(stack, run)
    (served,) = stack.simulator.ledger()
    tokens_usd = dollars_of({**served, "container_seconds": 0})
    assert run.status == "completed"
    assert (entry["kind"], entry["outcome"]) == ("estimated", "ok")
    assert entry["container_seconds"] == BOOKED_S[model] >= served["container_seconds"] > 0
    assert entry["input_tokens"] + entry["cached_tokens"] == served["input_tokens"]
    assert entry["output_tokens"] == served["output_tokens"]
    fee_usd = entry["cost_usd"] - tokens_usd
    assert fee_usd == pytest.approx(HOUR_USD[model] * BOOKED_S[model] / 3600)


def test_without_a_program_anthropic_s_call_is_a_fact(stack: Stack) -> None:
    run = run_to_end(agent("a", "Say hello. [[sim:programs=0]]", llm_config={"model": CLAUDE}))

    (entry,) = entries_of(stack, run)
    assert (entry["kind"], entry["container_seconds"]) == ("actual", 0)
    assert entry["cost_usd"] == dollars_of(stack.simulator.ledger()[0])


def test_beside_the_newest_web_tools_programs_are_free(stack: Stack) -> None:
    tools = [PROGRAM, {"server": "web_search", "max_uses": 1}]

    run = run_to_end(agent("a", "Compute.", llm_config={"model": NEWEST}, tools=tools))

    (entry,) = entries_of(stack, run)
    assert (entry["kind"], entry["container_seconds"]) == ("actual", 0)
    assert entry["web_searches"] == 1
    assert stack.simulator.ledger()[0]["container"] is not None


def test_a_larger_container_costs_more(stack: Stack) -> None:
    run = run_to_end(
        agent("a", "Compute.", llm_config={"model": GPT}, tools=[{**PROGRAM, "memory": "4g"}])
    )

    (entry,) = entries_of(stack, run)
    assert entry["container_seconds"] == 4 * BOOKED_S[GPT]


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_own_tools_follow_a_program_in_the_same_container(stack: Stack, model: str) -> None:
    run = run_to_end(
        agent("a", "Use check_total.", llm_config={"model": model}, tools=[PROGRAM, check_total])
    )

    first, second = stack.simulator.ledger()
    assert run.status == "completed"
    assert first["container"] is not None
    # Only OpenAI makes a container although no program runs.
    assert second["container"] == (first["container"] if model == GPT else None)
    assert [event.type for event in run.events()].count("tool_finished") == 1


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_a_stream_that_breaks_off_is_booked_at_the_worst_case(stack: Stack, model: str) -> None:
    run = run_to_end(
        agent(
            "a",
            "Compute. [[sim:cut_stream,times=1]]",
            llm_config={"model": model, "stream": True},
        )
    )

    first, second = entries_of(stack, run)
    assert run.status == "completed"
    assert (first["kind"], second["kind"]) == ("unconfirmed", "estimated")
    assert first["cost_usd"] > second["cost_usd"]


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    ("config", "tool", "complaint"),
    [
        ({"model": CLAUDE}, {"max_uses": 2}, "takes no max_uses: remove it"),
        ({"model": CLAUDE}, {"memory": "4g"}, "remove memory from code_execution"),
        ({"model": GPT, "api": "chat"}, {}, "chat completions have no tools that run at"),
    ],
)
def test_what_a_provider_does_not_take_is_refused(
    config: dict[str, Any], tool: dict[str, Any], complaint: str
) -> None:
    asked = agent("a", "Go.", llm_config=config, tools=[{**PROGRAM, **tool}])

    with pytest.raises(WorkflowError, match=complaint):
        enqueue(Workflow(name="w", agents=[asked]))


PRICED = """\
costs:
  model_prices:
    claude-haiku-4-5:
      - {input: 1, output: 5, cached_input: 0.1, container_hours: 0}
    claude-sonnet-4-5:
      - {input: 3, output: 15}
"""


@pytest.fixture
def quick_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack of its own, which notices a dead worker after two seconds."""
    configuration = CONFIGURATION + "  lease_s: 2\n  heartbeat_s: 0.5\n"
    with (
        run_stack(tmp_path, configuration=configuration) as stack,
        client_of(stack, monkeypatch),
    ):
        yield stack


def test_another_worker_goes_on_in_the_container_of_a_killed_one(quick_stack: Stack) -> None:
    hangs = "[[sim:latency=0,times=1]] [[sim:latency=60,times=2]] [[sim:pauses=2]]"
    simulator = quick_stack.simulator

    run = enqueue(
        Workflow(
            name="killed",
            agents=[agent("a", f"Compute. {hangs}", llm_config={"model": CLAUDE})],
        )
    )
    wait_until(lambda: len(simulator.ledger()) == 2, what="the second call is under way")
    quick_stack.workers[0].kill()
    with quick_stack.worker():
        run.wait(timeout=scaled(60))

    entries, served = entries_of(quick_stack, run), simulator.ledger()
    assert run.status == "completed"
    assert [entry["finish_reason"] for entry in entries] == ["pause", None, "pause", "stop"]
    assert [entry["kind"] for entry in entries][:3] == ["estimated", "unconfirmed", "estimated"]
    assert len({record["container"] for record in served} - {None}) == 1
    assert_ledgers_agree(entries, served)


@pytest.fixture
def priced_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack of its own, whose operator has free hours of containers."""
    with (
        run_stack(tmp_path, configuration=CONFIGURATION + PRICED) as stack,
        client_of(stack, monkeypatch),
    ):
        yield stack


def test_an_operator_with_free_hours_pays_no_fee(priced_stack: Stack) -> None:
    run = run_to_end(agent("a", "Compute.", llm_config={"model": CLAUDE}))
    unpriced = agent("a", "Go.", llm_config={"model": "claude-sonnet-4-5"})

    (entry,) = entries_of(priced_stack, run)
    (served,) = priced_stack.simulator.ledger()
    # The time stays in the ledger, so that another price can be applied later.
    assert entry["container_seconds"] == BOOKED_S[CLAUDE]
    assert entry["cost_usd"] == dollars_of({**served, "container_seconds": 0})
    assert entry["kind"] == "actual"
    with pytest.raises(UnknownModel, match=r"no fee for containers.*container_hours"):
        enqueue(Workflow(name="w", agents=[unpriced]))

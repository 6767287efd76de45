"""Agents whose provider searches the web; after each test the ledger equals the simulator's."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.errors import UnknownModel, WorkflowError
from app.examples.tools import check_total
from app.workflow_files.loader import load
from tests.support.ledgers import assert_ledgers_agree, dollars_of
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, ROOT, Stack, client_of, run_stack
from tests.support.waiting import wait_until

CLAUDE, GPT = "claude-haiku-4-5", "gpt-6.1-terra"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SEARCH = {"server": "web_search", "max_uses": 3}
AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
WAIT_S = scaled(30.0)
EXAMPLE = ROOT / "app" / "examples" / "news.yaml"


def agent(name: str, prompt: str, **fields: Any) -> Agent:
    config = {"max_tokens": 400, **fields.pop("llm_config")}
    fields = {"tools": [SEARCH], "cost_limit": 5.0, "retry_policy": AT_ONCE, **fields}
    return Agent(name=name, prompt_template=prompt, llm_config=config, **fields)


def run_to_end(*agents: Agent) -> Run:
    run = enqueue(Workflow(name="searches", agents=list(agents)))
    run.wait(timeout=WAIT_S)
    return run


def entries_of(stack: Stack, run: Run) -> list[dict[str, Any]]:
    return stack.sql("SELECT * FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("model", "path"), [(CLAUDE, MESSAGES), (GPT, RESPONSES)])
def test_searches_are_booked_with_their_fee_and_what_the_model_read(
    stack: Stack, model: str, path: str, stream: bool
) -> None:
    run = run_to_end(
        agent("a", "Who won? [[sim:searches=2]]", llm_config={"model": model, "stream": stream})
    )

    (entry,) = entries_of(stack, run)
    (served,) = stack.simulator.ledger()
    assert run.status == "completed"
    assert served["endpoint"] == path
    assert entry["web_searches"] == served["web_searches"] == 2
    assert entry["kind"] == "actual"
    assert entry["cost_usd"] == dollars_of(served)
    assert entry["cost_usd"] > Decimal("0.02")


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_a_search_that_fails_is_free(stack: Stack, model: str) -> None:
    run = run_to_end(
        agent("a", "Who won? [[sim:searches=3,search_errors=2]]", llm_config={"model": model})
    )

    assert run.status == "completed"
    assert [entry["web_searches"] for entry in entries_of(stack, run)] == [1]


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_the_provider_keeps_to_the_uses_that_are_held(stack: Stack, model: str) -> None:
    run = run_to_end(
        agent(
            "a",
            "Who won? [[sim:searches=9]]",
            llm_config={"model": model},
            tools=[{"server": "web_search", "max_uses": 2}],
        )
    )

    assert [entry["web_searches"] for entry in entries_of(stack, run)] == [2]


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_own_tools_follow_a_search_in_the_same_conversation(stack: Stack, model: str) -> None:
    run = run_to_end(
        agent("a", "Use check_total.", llm_config={"model": model}, tools=[SEARCH, check_total])
    )

    assert run.status == "completed"
    assert [entry["web_searches"] for entry in entries_of(stack, run)] == [1, 0]
    assert [event.type for event in run.events()].count("tool_finished") == 1


def test_pages_are_fetched_for_their_tokens_alone(stack: Stack) -> None:
    run = run_to_end(
        agent(
            "a",
            "What is on https://example.com/page ?",
            llm_config={"model": CLAUDE},
            tools=[{"server": "web_fetch", "max_result_tokens": 5000}],
        )
    )

    (entry,) = entries_of(stack, run)
    assert run.status == "completed"
    assert entry["web_searches"] == 0
    assert entry["input_tokens"] > 500


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_paused_answer_goes_on_and_each_call_is_booked(stack: Stack, stream: bool) -> None:
    run = run_to_end(
        agent(
            "a",
            "Who won? [[sim:searches=2,pauses=2]]",
            llm_config={"model": CLAUDE, "stream": stream},
        )
    )

    entries = entries_of(stack, run)
    assert run.status == "completed"
    assert run.outputs["a"]
    assert [entry["finish_reason"] for entry in entries] == ["pause", "pause", "stop"]
    assert [entry["web_searches"] for entry in entries] == [2, 2, 2]
    assert run.results["a"].metadata["finish_reason"] == "stop"


def test_pauses_end_at_max_turns_with_the_remedy(stack: Stack) -> None:
    run = run_to_end(
        agent("a", "Who won? [[sim:pauses=9]]", llm_config={"model": CLAUDE}, max_turns=2)
    )

    assert run.status == "failed"
    assert "raise its max_turns, or lower max_uses" in str(run.results["a"].error)
    assert len(entries_of(stack, run)) == 2


def test_a_later_attempt_goes_on_after_the_pauses_of_an_earlier_one(stack: Stack) -> None:
    stack.simulator.configure(faults=[{"kind": "status", "status": 500, "every": 3}])

    run = run_to_end(agent("a", "Who won? [[sim:pauses=3]]", llm_config={"model": CLAUDE}))

    entries = entries_of(stack, run)
    assert run.status == "completed"
    assert run.results["a"].retry_count == 1
    assert [entry["outcome"] for entry in entries] == ["ok", "ok", "ServerFailure", "ok", "ok"]
    assert sum(entry["web_searches"] for entry in entries) == 4


def test_the_example_searches_with_both_providers(stack: Stack) -> None:
    file = load(EXAMPLE)

    run = enqueue(file.workflow, file.input)
    run.wait(timeout=WAIT_S)

    assert run.status == "completed"
    by_agent = {entry["agent"]: entry["web_searches"] for entry in entries_of(stack, run)}
    assert by_agent == {"claude": 1, "gpt": 1, "editor": 0}


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_a_stream_that_breaks_off_is_booked_at_the_worst_case(stack: Stack, model: str) -> None:
    run = run_to_end(
        agent(
            "a",
            "Who won? [[sim:searches=2]] [[sim:cut_stream,times=1]]",
            llm_config={"model": model, "stream": True},
        )
    )

    first, second = entries_of(stack, run)
    assert run.status == "completed"
    assert (first["kind"], second["kind"]) == ("unconfirmed", "actual")
    assert first["cost_usd"] > second["cost_usd"]


def test_a_hold_covers_the_fees_and_all_reads(stack: Stack) -> None:
    run = run_to_end(
        agent(
            "a",
            "Who won? [[sim:status=500]]",
            llm_config={"model": CLAUDE, "max_tokens": 100},
            cost_limit=0.05,
        )
    )

    assert run.status == "failed"
    assert "cost_limit" in str(run.results["a"].error)
    assert stack.simulator.ledger() == []


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    ("config", "tool", "complaint"),
    [
        ({"model": "gpt-4o", "api": "chat"}, SEARCH, "set api to 'responses'"),
        ({"model": GPT}, {"server": "web_fetch"}, "web_fetch is no tool of OpenAI's"),
        ({"model": GPT}, SEARCH | {"blocked_domains": ["a.b"]}, "give allowed_domains"),
        ({"model": CLAUDE}, SEARCH | {"search_context_size": "low"}, "search_context_size"),
        ({"model": CLAUDE, "container": "c"}, SEARCH, '"server": "code_execution"'),
        ({"model": "gpt-4o", "web_search_options": {}}, SEARCH, '"server": "web_search"'),
    ],
)
def test_what_a_provider_does_not_have_is_refused_before_anything_is_stored(
    config: dict[str, Any], tool: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(WorkflowError, match=complaint):
        enqueue(Workflow(name="w", agents=[agent("a", "Go.", llm_config=config, tools=[tool])]))


@pytest.mark.usefixtures("stack")
def test_searches_without_a_known_fee_are_refused() -> None:
    unpriced = agent("a", "Go.", llm_config={"model": "gpt-4"})

    with pytest.raises(UnknownModel, match=r"no fee for searches.*web_searches"):
        enqueue(Workflow(name="w", agents=[unpriced]))


@pytest.mark.usefixtures("stack")
def test_fallbacks_are_checked_too() -> None:
    one = agent("a", "Go.", llm_config={"model": CLAUDE}, fallbacks=[{"model": GPT}])
    fetching = agent(
        "b",
        "Go.",
        llm_config={"model": CLAUDE},
        fallbacks=[{"model": GPT}],
        tools=[{"server": "web_fetch"}],
    )

    Workflow(name="w", agents=[one])
    with pytest.raises(WorkflowError, match=r"in fallbacks\[0\], web_fetch is no tool of OpenAI's"):
        enqueue(Workflow(name="w", agents=[fetching]))


@pytest.fixture
def quick_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack of its own, which notices a dead worker after two seconds."""
    configuration = CONFIGURATION + "  lease_s: 2\n  heartbeat_s: 0.5\n"
    with (
        run_stack(tmp_path, configuration=configuration) as stack,
        client_of(stack, monkeypatch),
    ):
        yield stack


def test_a_killed_worker_s_pauses_are_not_paid_again(quick_stack: Stack) -> None:
    hangs = "[[sim:latency=0,times=1]] [[sim:latency=60,times=2]] [[sim:pauses=2]]"
    simulator = quick_stack.simulator

    run = enqueue(
        Workflow(
            name="killed",
            agents=[agent("a", f"Who won? {hangs}", llm_config={"model": CLAUDE})],
        )
    )
    wait_until(lambda: len(simulator.ledger()) == 2, what="the second call is under way")
    quick_stack.workers[0].kill()
    with quick_stack.worker():
        run.wait(timeout=scaled(60))

    entries = entries_of(quick_stack, run)
    assert run.status == "completed"
    assert [entry["finish_reason"] for entry in entries] == ["pause", None, "pause", "stop"]
    assert [entry["kind"] for entry in entries] == ["actual", "unconfirmed", "actual", "actual"]
    assert len(simulator.ledger()) == 4
    assert_ledgers_agree(entries, simulator.ledger())

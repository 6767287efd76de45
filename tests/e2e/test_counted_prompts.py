"""Long prompts on a whole stack: they are counted first, and their holds follow from the counts."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from app import Agent, Run, Workflow, WorkflowStatus, enqueue
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

#: A quarter of a second between two counts of OpenAI; other providers count without a limit.
PER_MINUTE = 240
LIMITED = CONFIGURATION.replace(
    "  openai:\n    default: {concurrent_requests: 500}\n",
    "  openai:\n    default: {concurrent_requests: 500}\n"
    f"    models: {{token_count: {{requests_per_minute: {PER_MINUTE}, burst: 1}}}}\n",
)
FAULT = {"model": "token_count"}
TEXT = "How is the weather? " * 10_000  # 200 kB
TOKENS = 50_000
MARGIN = Decimal("1.1")
CALLS = {
    "openai": {"model": "gpt-4o-mini"},
    "responses": {"model": "gpt-4o-mini", "api": "responses"},
    "anthropic": {"model": "claude-haiku-4-5"},
}
PER_TOKEN = {"gpt-4o-mini": Decimal("0.00000015"), "claude-haiku-4-5": Decimal("0.000001")}


@pytest.fixture(scope="module")
def stack_of_counts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("counts")
    with (
        pytest.MonkeyPatch.context() as patch,
        run_stack(folder, "openai", "anthropic", "scheduler", configuration=LIMITED) as running,
        client_of(running, patch),
    ):
        yield running


@pytest.fixture
def counts(stack_of_counts: Stack) -> Iterator[Stack]:
    stack_of_counts.simulator.reset()
    since = len(stack_of_counts.sql("SELECT id FROM cost_entries"))
    yield stack_of_counts
    entries = stack_of_counts.sql("SELECT * FROM cost_entries ORDER BY id")[since:]
    assert_ledgers_agree(entries, stack_of_counts.simulator.ledger())


def started(config: dict[str, Any], text: str, *, budget: float, agents: int = 1) -> Run:
    made = [
        Agent(
            name=f"a{number}",
            prompt_template=f"[[sim:latency=0.5]] {number} {{text}}",
            llm_config=config | {"max_tokens": 20},
            max_retries=0,
        )
        for number in range(agents)
    ]
    workflow = Workflow(name="long", agents=made, cost_budget=budget, max_parallel_agents=agents)
    return enqueue(workflow, {"text": text})


def held_tokens(stack: Stack, config: dict[str, Any], run: Run) -> float:
    """The number of tokens that the hold of a running call pays for."""
    rows = wait_until(
        lambda: stack.sql(
            "SELECT amount_usd FROM holds JOIN agent_runs ON agent_runs.id = agent_run_id "
            "WHERE run_id = %s",
            run.id,
        ),
        timeout_s=scaled(25),
        what="a hold",
    )
    return float(rows[0]["amount_usd"] / PER_TOKEN[config["model"]])


def ends(run: Run) -> WorkflowStatus:
    run.wait(timeout=scaled(60))
    return run.status


@pytest.mark.parametrize("form", CALLS)
def test_a_long_prompt_runs_under_a_budget_that_its_bytes_would_not_fit(
    counts: Stack, form: str
) -> None:
    config = CALLS[form]
    budget = PER_TOKEN[config["model"]] * TOKENS * MARGIN
    run = started(config, TEXT, budget=float(budget))

    held = held_tokens(counts, config, run)

    assert ends(run) is WorkflowStatus.COMPLETED
    (record,) = counts.simulator.counts()
    (served,) = counts.simulator.ledger()
    billed = served["input_tokens"]
    assert (record["model"], record["status"]) == (config["model"], 200)
    assert TOKENS < billed < held < 1.05 * billed + 1200
    assert record["arrived_s"] < served["arrived_s"]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429, "retry_after": 3600},
        {"kind": "error_in_200", "status": 429},
        {"kind": "garbage"},
        {"kind": "drop"},
        {"kind": "hang"},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}",
)
def test_without_a_count_the_hold_is_the_bound_by_bytes_and_the_call_is_made(
    counts: Stack, fault: dict[str, Any]
) -> None:
    # A pause of the counts of one provider must not reach the other tests.
    form = "anthropic" if fault.get("retry_after") else "openai"
    counts.simulator.configure(faults=[FAULT | fault])
    run = started(CALLS[form], f"{fault} {TEXT}", budget=1.0)

    held = held_tokens(counts, CALLS[form], run)

    assert ends(run) is WorkflowStatus.COMPLETED
    assert held > len(TEXT)
    assert len(counts.simulator.counts()) == 1
    assert counts.sql("SELECT * FROM attempts WHERE outcome <> 'completed'") == []
    breakers = counts.sql("SELECT * FROM events WHERE type = 'circuit_open'")
    assert breakers == []
    if fault.get("retry_after"):
        limits = started(CALLS[form], f"again {TEXT}", budget=1.0)
        assert ends(limits) is WorkflowStatus.COMPLETED  # the calls themselves are not paused


def test_a_stream_that_breaks_off_is_booked_within_the_hold(counts: Stack) -> None:
    counts.simulator.configure(faults=[{"kind": "cut_stream", "model": "gpt-4o-mini"}])
    run = started(CALLS["openai"] | {"stream": True}, f"cut {TEXT}", budget=0.0083)

    assert ends(run) is WorkflowStatus.FAILED
    (entry,) = counts.sql("SELECT * FROM cost_entries WHERE run_id = %s", run.id)
    assert entry["kind"] == "estimated"
    assert TOKENS < entry["input_tokens"] + entry["cache_write_tokens"] <= entry["bound_tokens"]
    assert entry["bound_tokens"] < MARGIN * TOKENS
    assert entry["cost_usd"] < Decimal("0.0083")


def test_a_count_that_is_refused_for_a_moment_is_tried_once_more(counts: Stack) -> None:
    counts.simulator.configure(faults=[FAULT | {"kind": "status", "status": 429, "first": 1}])
    run = started(CALLS["openai"], f"moment {TEXT}", budget=0.0083)

    assert ends(run) is WorkflowStatus.COMPLETED
    assert [record["status"] for record in counts.simulator.counts()] == [429, 200]


def test_a_short_prompt_is_not_counted(counts: Stack) -> None:
    run = started(CALLS["openai"], TEXT[:49_000], budget=1.0)

    assert ends(run) is WorkflowStatus.COMPLETED
    assert counts.simulator.counts() == []


def test_a_known_prompt_is_not_counted_again(counts: Stack) -> None:
    for _ in range(2):
        assert ends(started(CALLS["openai"], f"known {TEXT}", budget=0.0083)) is (
            WorkflowStatus.COMPLETED
        )

    assert len(counts.simulator.counts()) == 1


def test_counts_keep_their_own_limit_and_leave_that_of_calls(counts: Stack) -> None:
    agents = 12
    counts.simulator.configure(
        limits=[{"provider": "openai", "model": "token_count", "rpm": PER_MINUTE, "burst": 1}]
    )
    run = started(CALLS["openai"], f"many {TEXT}", budget=0.2, agents=agents)

    assert ends(run) is WorkflowStatus.COMPLETED
    records = counts.simulator.counts()
    assert [record["status"] for record in records] == [200] * agents
    arrived = sorted(record["arrived_s"] for record in records)
    assert arrived[-1] - arrived[0] >= (agents - 1) * 60 / PER_MINUTE

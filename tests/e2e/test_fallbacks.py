"""Fallbacks on real workers: the provider that is called after a failure, and the cost."""

from decimal import Decimal
from typing import Any

import pytest

from app import Agent, Workflow, WorkflowStatus, enqueue
from app.client.run import Run
from app.errors import UnknownModel
from tests.support.pace import scaled
from tests.support.stack import Stack

NO_RETRY = {"max_retries": 0}
OPENAI, ANTHROPIC = "gpt-4o-mini", "claude-haiku-4-5"


def down(stack: Stack, *, provider: str = "openai", **fault: Any) -> None:
    stack.simulator.configure(faults=[{"kind": "status", "provider": provider, **fault}])


def finished(name: str, *agents: Agent, **rules: Any) -> Run:
    run = enqueue(Workflow(name=name, agents=agents, **rules))
    run.wait(timeout=scaled(30))
    return run


def agent(name: str = "a", *, fallbacks: tuple[str, ...] = (ANTHROPIC,), **fields: Any) -> Agent:
    config = {"model": OPENAI, "max_tokens": 50, **fields.pop("llm_config", {})}
    return Agent(
        name=name,
        prompt_template=fields.pop("prompt_template", "go"),
        llm_config=config,
        fallbacks=[{"model": model} for model in fallbacks],
        **NO_RETRY | fields,
    )


def entries(stack: Stack, run: Run) -> list[dict[str, Any]]:
    return stack.sql(
        "SELECT provider, model, outcome, kind, attempt, cost_usd FROM cost_entries"
        " WHERE run_id = %s ORDER BY id",
        run.id,
    )


def test_another_provider_answers_in_the_same_attempt(stack: Stack) -> None:
    down(stack, status=529)

    run = finished("failing over", agent())

    first, second = entries(stack, run)
    assert run.status is WorkflowStatus.COMPLETED
    assert (first["model"], first["outcome"], first["cost_usd"]) == (OPENAI, "Overloaded", 0)
    assert (second["model"], second["outcome"]) == (ANTHROPIC, "ok")
    assert (first["attempt"], second["attempt"]) == (1, 1)
    assert second["cost_usd"] > 0
    (event,) = [event for event in run.events() if event.type == "agent_fallback"]
    assert event.data["error_class"] == "Overloaded"
    assert (event.data["model"], event.data["next_model"]) == (OPENAI, ANTHROPIC)


def test_the_order_is_kept_and_the_first_that_answers_wins(stack: Stack) -> None:
    down(stack, status=500, model="gpt-4o*")

    run = finished("in order", agent(fallbacks=("gpt-4o", ANTHROPIC, "claude-sonnet-5")))

    assert [entry["model"] for entry in entries(stack, run)] == [OPENAI, "gpt-4o", ANTHROPIC]


def test_an_error_that_is_not_among_those_fails_at_once(stack: Stack) -> None:
    down(stack, status=400)

    run = finished("bad request", agent())
    wanted = finished("bad request, wanted", agent(fallback_on=["BadRequest"]))

    assert run.status is WorkflowStatus.FAILED
    assert [entry["model"] for entry in entries(stack, run)] == [OPENAI]
    assert wanted.status is WorkflowStatus.COMPLETED


def test_an_attempt_without_any_answer_is_retried_from_the_first_model(stack: Stack) -> None:
    stack.simulator.configure(
        faults=[
            {"kind": "status", "status": 500, "provider": "openai", "first": 1},
            {"kind": "status", "status": 400, "provider": "anthropic"},
        ]
    )

    run = finished("again", agent(max_retries=2))

    found = [(entry["attempt"], entry["model"], entry["outcome"]) for entry in entries(stack, run)]
    assert run.status is WorkflowStatus.COMPLETED
    assert found == [
        (1, OPENAI, "ServerFailure"),
        (1, ANTHROPIC, "BadRequest"),
        (2, OPENAI, "ok"),
    ]


def test_money_held_for_the_failed_call_is_free_for_the_next_one(stack: Stack) -> None:
    down(stack, status=503)
    # Enough for either call's worst case, and not for both together.
    tight = agent(llm_config={"model": "gpt-4o", "max_tokens": 100}, cost_limit=0.0016)

    run = finished("tight", tight)

    assert run.status is WorkflowStatus.COMPLETED
    assert len(entries(stack, run)) == 2


def test_a_cheaper_model_may_fit_where_the_budget_does_not(stack: Stack) -> None:
    costly = agent(
        llm_config={"model": "claude-sonnet-5", "max_tokens": 1000},
        fallbacks=(OPENAI,),
        fallback_on=["BudgetExceeded"],
        cost_limit=0.005,
    )

    run = finished("expensive", costly)

    assert run.status is WorkflowStatus.COMPLETED
    assert [entry["model"] for entry in entries(stack, run)] == [OPENAI]


def test_a_conversation_goes_on_with_the_model_that_answered(stack: Stack) -> None:
    stack.simulator.configure(
        faults=[{"kind": "status", "status": 529, "provider": "openai", "first": 1}]
    )
    clerk = agent(
        tools=["check_total"],
        prompt_template="Use check_total for this. [[sim:tool_turns=1]]",
    )

    run = finished("conversation", clerk)

    assert run.status is WorkflowStatus.COMPLETED
    assert [entry["model"] for entry in entries(stack, run)] == [OPENAI, ANTHROPIC, ANTHROPIC]


def test_a_fallback_without_a_price_is_refused_before_anything_is_stored(stack: Stack) -> None:
    before = stack.sql("SELECT count(*) AS n FROM runs")

    with pytest.raises(UnknownModel, match="gpt-99"):
        enqueue(Workflow(name="unpriced", agents=[agent(fallbacks=("gpt-99",))]))

    assert stack.sql("SELECT count(*) AS n FROM runs") == before
    assert stack.simulator.ledger() == []


def test_estimates_are_kept_beside_the_usage_and_bounds_hold(stack: Stack) -> None:
    run = finished("estimates", agent(), agent("b", llm_config={"model": ANTHROPIC}))

    rows = stack.sql(
        "SELECT provider, expected_tokens, bound_tokens, input_tokens FROM cost_entries"
        " WHERE run_id = %s ORDER BY provider DESC",
        run.id,
    )
    assert [row["provider"] for row in rows] == ["openai", "anthropic"]
    for row in rows:
        assert 0 < row["input_tokens"] <= row["bound_tokens"]
        assert row["expected_tokens"] > 0
    shown = stack.command("costs", "--estimates", "--json", "--since", "1d")
    assert '"bound_factor"' in shown.stdout, shown.stderr
    above = stack.sql("SELECT coalesce(sum(above_bound), 0) AS n FROM token_estimates")
    assert above == [{"n": Decimal(0)}]

import asyncio
from pathlib import Path

import pytest

from app import Agent, AgentResult, AgentStatus, FailureHandler, RetryPolicy
from app.errors import (
    AgentError,
    BudgetExceeded,
    NotRaised,
    ProviderError,
    RateLimited,
    ToolError,
    error_classes,
)
from app.failures.classification import class_named, classify
from app.failures.decisions import Fail, Retry

AGENT = Agent(name="a", prompt_template="go", llm_config={"model": "gpt-4o"})
RELIABILITY = Path(__file__).parents[4] / "docs" / "reliability.md"


def result(
    status: AgentStatus = AgentStatus.FAILED, retries: int = 0, error_class: str | None = None
) -> AgentResult:
    metadata = {"error_class": error_class} if error_class else {}
    return AgentResult(agent_id="1", status=status, retry_count=retries, metadata=metadata)


@pytest.mark.parametrize(
    ("status", "error_class", "again"),
    [
        (AgentStatus.FAILED, None, True),
        (AgentStatus.RATE_LIMITED, None, True),
        (AgentStatus.BUDGET_EXCEEDED, None, False),
        (AgentStatus.COMPLETED, None, False),
        (AgentStatus.CANCELLED, None, False),
        (AgentStatus.FAILED, "ServerFailure", True),
        (AgentStatus.FAILED, "AgentTimeout", True),
        (AgentStatus.RATE_LIMITED, "RateLimited", True),
        (AgentStatus.FAILED, "BadRequest", False),
        (AgentStatus.FAILED, "QuotaExhausted", False),
        (AgentStatus.FAILED, "RecoveriesExhausted", False),
        (AgentStatus.FAILED, "KeyError", False),
    ],
)
def test_a_failure_is_retried_if_its_class_says_so(
    status: AgentStatus, error_class: str | None, again: bool
) -> None:
    assert FailureHandler().handle_failure(AGENT, result(status, 0, error_class)) is again


def test_retries_end_with_the_policy_given_or_the_agents_or_the_default() -> None:
    handler = FailureHandler(RetryPolicy(max_retries=5))
    stubborn = Agent(name="b", prompt_template="go", max_retries=1)
    own = Agent(name="c", prompt_template="go", retry_policy=RetryPolicy(max_retries=2))

    def most(agent: Agent, policy: RetryPolicy | None = None) -> int:
        answers = [handler.handle_failure(agent, result(retries=n), policy) for n in range(9)]
        return answers.index(False)

    assert most(AGENT) == 5
    assert most(stubborn) == 1
    assert most(own) == 2
    assert most(own, RetryPolicy(max_retries=7)) == 7


def test_a_worker_asks_the_same_handler_and_waits_as_long_as_the_provider_says() -> None:
    handler = FailureHandler(RetryPolicy(max_retries=1, base_delay=2, jitter=False))

    first = handler.decide(AGENT, RateLimited("slow", retry_after_s=30), retries=0)
    last = handler.decide(AGENT, RateLimited("slow"), retries=1)

    assert first == Retry(after_s=30)
    assert last == Fail(status=AgentStatus.RATE_LIMITED)


def test_a_final_failure_is_told_once_and_what_the_callback_raises_harms_nothing() -> None:
    told = []

    def on_failure(agent: Agent, final: AgentResult) -> None:
        told.append((agent.name, final.status))
        raise RuntimeError("the pager is broken")

    handler = FailureHandler(RetryPolicy(max_retries=1), on_failure)

    assert handler.handle_failure(AGENT, result())
    assert not handler.handle_failure(AGENT, result(retries=1))

    assert told == [("a", AgentStatus.FAILED)]
    statistics = handler.get_statistics()
    assert statistics == {
        "failures": 2,
        "retries": 1,
        "final": 1,
        "callbacks": 1,
        "callbacks_failed": 1,
        "by_class": {"failed": 2},
    }


def test_a_callback_may_be_a_coroutine_with_or_without_a_loop() -> None:
    told = []

    async def on_failure(agent: Agent, final: AgentResult) -> None:
        told.append(final.error)

    async def on_a_loop() -> None:
        handler.handle_failure(AGENT, result(AgentStatus.BUDGET_EXCEEDED))
        await handler.close()

    handler = FailureHandler(None, on_failure)

    handler.handle_failure(AGENT, result(AgentStatus.BUDGET_EXCEEDED))
    asyncio.run(on_a_loop())

    assert told == [None, None]


def test_a_run_fails_by_the_rules_of_partial_completion() -> None:
    handler = FailureHandler()
    critical = Agent(name="b", prompt_template="go", priority=8)

    assert not handler.should_fail_workflow([], 4, False)
    assert handler.should_fail_workflow([AGENT], 4, False)
    assert not handler.should_fail_workflow([AGENT], 4)
    assert not handler.should_fail_workflow([AGENT] * 2, 4)
    assert handler.should_fail_workflow([AGENT] * 3, 4)
    assert handler.should_fail_workflow([critical], 4)


def test_every_class_of_the_error_tree_is_found_by_its_name_with_its_facts() -> None:
    for kind in error_classes():
        assert class_named(kind.__name__) == classify(kind)
        assert classify(kind).retriable is kind.retriable
        assert classify(kind).final.is_final


def test_what_nobody_mapped_is_a_defect_and_not_retried() -> None:
    assert not classify(KeyError("x")).retriable
    assert classify(ToolError("no")).final is AgentStatus.FAILED
    assert classify(BudgetExceeded("no")).final is AgentStatus.BUDGET_EXCEEDED
    assert class_named("KeyError") is None


def test_the_documentation_has_every_class_and_whether_it_is_retried() -> None:
    rows = {
        cells[1].strip(" `"): cells[2].strip()
        for line in RELIABILITY.read_text("utf-8").splitlines()
        if len(cells := line.split("|")) > 4
    }

    for kind in set(error_classes()) - {AgentError, ProviderError, NotRaised}:
        assert rows[kind.__name__] == ("yes" if kind.retriable else "no")

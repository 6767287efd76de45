import pytest

from app.domain.retry import RetryPolicy, RetryStrategy
from app.domain.status import AgentStatus
from app.errors import (
    AgentError,
    BadRequest,
    BudgetExceeded,
    Overloaded,
    ProviderError,
    RateLimited,
    error_classes,
)
from app.failures.decisions import Fail, Retry, decide

POLICY = RetryPolicy(max_retries=2, base_delay=1, jitter=False)


def test_a_retriable_error_is_tried_again_until_the_retries_are_used_up() -> None:
    error = Overloaded("busy")

    decisions = [decide(error, retries=retries, policy=POLICY) for retries in range(3)]

    assert decisions == [Retry(after_s=1), Retry(after_s=2), Fail(status=AgentStatus.FAILED)]


@pytest.mark.parametrize("kind", [kind for kind in error_classes() if not kind.retriable])
def test_an_error_that_is_not_retriable_fails_at_once(kind: type[AgentError]) -> None:
    decision = decide(kind("no"), retries=0, policy=POLICY)

    assert isinstance(decision, Fail)


def test_the_last_status_tells_why_the_agent_has_no_result() -> None:
    def status(error: AgentError) -> AgentStatus:
        decision = decide(error, retries=2, policy=POLICY)
        assert isinstance(decision, Fail)
        return decision.status

    assert status(BudgetExceeded("spent")) is AgentStatus.BUDGET_EXCEEDED
    assert status(RateLimited("slow down")) is AgentStatus.RATE_LIMITED
    assert status(BadRequest("what?")) is AgentStatus.FAILED


def test_the_provider_may_ask_for_a_longer_wait_but_not_for_a_shorter_one() -> None:
    patient = RetryPolicy(strategy=RetryStrategy.CONSTANT_DELAY, base_delay=5, jitter=False)

    def after_s(error: ProviderError) -> float:
        decision = decide(error, retries=0, policy=patient)
        assert isinstance(decision, Retry)
        return decision.after_s

    assert after_s(RateLimited("wait", retry_after_s=30)) == 30
    assert after_s(RateLimited("wait", retry_after_s=0.1)) == 5

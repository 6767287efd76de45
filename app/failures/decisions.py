"""(error, retries so far, policy) -> try again after some time, or fail for good."""

from dataclasses import dataclass

from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import AgentError, BudgetExceeded, ProviderError, RateLimited


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Another attempt, after ``after_s`` seconds."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Fail:
    """No other attempt: the agent run ends in ``status``."""

    status: AgentStatus


def decide(error: AgentError, *, retries: int, policy: RetryPolicy) -> Retry | Fail:
    """What follows from a failed attempt.

    Args:
        error: Why it failed; whether that may be retried is a fact of its class.
        retries: Retries made so far.
        policy: How many there may be, and how they are spaced.
    """
    if error.retriable and retries < policy.max_retries:
        asked_s = error.retry_after_s if isinstance(error, ProviderError) else None
        return Retry(after_s=policy.delay_s(retries + 1, retry_after_s=asked_s))
    if isinstance(error, BudgetExceeded):
        return Fail(status=AgentStatus.BUDGET_EXCEEDED)
    if isinstance(error, RateLimited):
        return Fail(status=AgentStatus.RATE_LIMITED)
    return Fail(status=AgentStatus.FAILED)

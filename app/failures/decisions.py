"""Decides after a failed attempt whether another attempt follows or the agent run ends."""

from dataclasses import dataclass

from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import ProviderError
from app.failures.classification import FailureClass, classify


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """The decision to make another attempt after ``after_s`` seconds."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Fail:
    """The decision to make no other attempt; the agent run ends in ``status``."""

    status: AgentStatus


def decide(
    failure: FailureClass | BaseException,
    *,
    retries: int,
    policy: RetryPolicy,
) -> Retry | Fail:
    """Decide on the next step after a failed attempt.

    Args:
        failure: The error, or only its class. An error may name a time to wait.
        retries: Number of retries so far.
        policy: Number and spacing of the retries.
    """
    kind = failure if isinstance(failure, FailureClass) else classify(failure)
    if kind.retriable and retries < policy.max_retries:
        asked_s = failure.retry_after_s if isinstance(failure, ProviderError) else None
        return Retry(after_s=policy.delay_s(retries + 1, retry_after_s=asked_s))
    return Fail(status=kind.final)

"""(kind of failure, retries so far, policy) -> try again after some time, or fail for good."""

from dataclasses import dataclass

from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import ProviderError
from app.failures.classification import FailureClass, classify


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Another attempt, after ``after_s`` seconds."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Fail:
    """No other attempt: the agent run ends in ``status``."""

    status: AgentStatus


def decide(
    failure: FailureClass | BaseException,
    *,
    retries: int,
    policy: RetryPolicy,
) -> Retry | Fail:
    """Decide what follows from a failed attempt.

    Args:
        failure: The error, which may ask for a wait, or only its class.
        retries: Retries made so far.
        policy: Number and spacing of the retries.
    """
    kind = failure if isinstance(failure, FailureClass) else classify(failure)
    if kind.retriable and retries < policy.max_retries:
        asked_s = failure.retry_after_s if isinstance(failure, ProviderError) else None
        return Retry(after_s=policy.delay_s(retries + 1, retry_after_s=asked_s))
    return Fail(status=kind.final)

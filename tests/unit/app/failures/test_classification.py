"""Every status and error code that the providers document, and its consequence."""

from typing import Any

import pytest

from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.failures.classification import classify
from app.failures.decisions import Fail, Retry, decide
from app.llm.errors import from_answer

POLICY = RetryPolicy(base_delay=2, jitter=False)
#: Provider, status, code, class, retried, final state.
OPENAI = [
    (429, "rate_limit_exceeded", "RateLimited", True),
    (429, "slow_down", "RateLimited", True),
    (500, "server_error", "ServerFailure", True),
    (502, None, "ServerFailure", True),
    (503, "slow_down", "Overloaded", True),
    (504, None, "ServerFailure", True),
    (400, "invalid_request_error", "BadRequest", False),
    (400, "context_length_exceeded", "BadRequest", False),
    (401, "invalid_api_key", "AuthenticationFailed", False),
    (403, "unsupported_country_region_territory", "AuthenticationFailed", False),
    (404, "model_not_found", "BadRequest", False),
    (413, None, "BadRequest", False),
    (422, None, "BadRequest", False),
    (429, "insufficient_quota", "QuotaExhausted", False),
    (429, "credit_balance_exhausted", "QuotaExhausted", False),
    (429, "organization_spend_limit_exceeded", "QuotaExhausted", False),
    (429, "project_spend_limit_exceeded", "QuotaExhausted", False),
    (429, "billing_hard_limit_reached", "QuotaExhausted", False),
]
ANTHROPIC = [
    (429, "rate_limit_error", "RateLimited", True),
    (500, "api_error", "ServerFailure", True),
    (504, "timeout_error", "ServerFailure", True),
    (529, "overloaded_error", "Overloaded", True),
    (409, "conflict_error", "ServerFailure", True),
    (400, "invalid_request_error", "BadRequest", False),
    (401, "authentication_error", "AuthenticationFailed", False),
    (402, "billing_error", "QuotaExhausted", False),
    (403, "permission_error", "AuthenticationFailed", False),
    (404, "not_found_error", "BadRequest", False),
    (413, "request_too_large", "BadRequest", False),
    (429, "enforced_spend_limit_reached", "QuotaExhausted", False),
    # An error event of a stream comes after a 200.
    (200, "overloaded_error", "Overloaded", True),
    (200, "api_error", "ServerFailure", True),
    (200, "rate_limit_error", "RateLimited", True),
    (200, "invalid_request_error", "BadRequest", False),
]


def body(provider: str, code: str | None) -> dict[str, Any]:
    if provider == "openai":
        return {"error": {"message": "no", "type": code, "param": None, "code": code}}
    if code == "enforced_spend_limit_reached":
        details = {"error_code": code}
        return {"type": "error", "error": {"type": "rate_limit_error", "details": details}}
    return {"type": "error", "error": {"type": code, "message": "no"}}


@pytest.mark.parametrize(
    ("provider", "status", "code", "name", "again"),
    [("openai", *row) for row in OPENAI] + [("anthropic", *row) for row in ANTHROPIC],
)
def test_an_answer_is_classified_and_retried_as_its_provider_documents(
    provider: str, status: int, code: str | None, name: str, again: bool
) -> None:
    error = from_answer(
        provider=provider, status=status, headers={"retry-after": "9"}, body=body(provider, code)
    )
    kind = classify(error)

    first = decide(error, retries=0, policy=POLICY)
    last = decide(error, retries=POLICY.max_retries, policy=POLICY)

    assert (kind.name, kind.retriable) == (name, again)
    final = AgentStatus.RATE_LIMITED if name == "RateLimited" else AgentStatus.FAILED
    assert last == Fail(status=final)
    assert first == (Retry(after_s=9.0) if again else Fail(status=final))

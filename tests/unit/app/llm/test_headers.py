"""Headers of answers: the limits, and the time to wait in all its forms."""

from datetime import UTC, datetime

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RateLimited
from app.llm.errors import from_answer
from app.llm.headers import limit_headers, retry_after_s


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Sat, 21 Nov 2026 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 07:00:00 GMT"}, 0.0),
        ({"retry-after": "2026-11-21T08:00:30Z"}, 30.0),
        ({"retry-after": "3s"}, 3.0),
        ({"retry-after": "1m3.5s"}, 63.5),
        ({"retry-after": "200ms"}, 0.2),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after": "1e300"}, 86_400.0),
        ({"retry-after": "Sat, 21 Nov 9999999 08:00:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_a_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    now = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)

    assert retry_after_s(httpx2.Headers(headers), now=now) == seconds


def test_only_headers_about_limits_are_kept() -> None:
    headers = {
        "X-RateLimit-Remaining-Tokens": "1",
        "Anthropic-RateLimit-Requests-Limit": "2",
        "Retry-After": "3",
        "Set-Cookie": "secret",
        "Authorization": "Bearer secret",
    }

    assert limit_headers(headers) == {
        "x-ratelimit-remaining-tokens": "1",
        "anthropic-ratelimit-requests-limit": "2",
        "retry-after": "3",
    }


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-4o", False),
        ("gpt-4.1-mini", False),
        ("gpt-oss-120b", False),
        ("chatgpt-4o-latest", False),
        ("gpt-5", True),
        ("gpt-5.4-mini", True),
        ("gpt-6.1-terra", True),
        ("o1", True),
        ("o4-mini-2025-04-16", True),
        ("openai/gpt-5-mini", True),
        ("llama-o3", False),
    ],
)
def test_a_reasoning_model_of_openai_is_known_by_its_name(model: str, reasons: bool) -> None:
    assert is_openai_reasoning(model) is reasons


@pytest.mark.parametrize(
    ("model", "effort", "samples"),
    [
        ("gpt-4o", None, True),
        ("gpt-5-mini", None, False),
        ("gpt-5-chat-latest", None, True),
        ("gpt-5.2", None, True),
        ("gpt-5.2", "high", False),
        ("gpt-5.6-luna", None, False),
        ("gpt-6-sol", "none", True),
        ("o3", None, False),
    ],
)
def test_which_models_of_openai_take_a_temperature(
    model: str, effort: str | None, samples: bool
) -> None:
    assert openai_samples(model, effort) is samples


@pytest.mark.parametrize(
    ("model", "samples"),
    [
        ("claude-2.1", True),
        ("claude-instant-1.2", True),
        ("claude-3-5-sonnet-20241022", True),
        ("claude-3-opus-latest", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-haiku-4-5", True),
        ("claude-opus-4-6", True),
        ("anthropic.claude-sonnet-4-6-v1:0", True),
        ("claude-opus-4-7", False),
        ("claude-opus-5", False),
        ("claude-sonnet-5-5", False),
        ("claude-mythos-preview", False),
        ("glm-5", True),
    ],
)
def test_which_models_of_anthropic_take_a_temperature(model: str, samples: bool) -> None:
    assert anthropic_samples(model) is samples


@given(st.text())
def test_no_retry_after_raises(value: str) -> None:
    seconds = retry_after_s({"retry-after": value}, now=datetime(2026, 11, 21, tzinfo=UTC))

    assert seconds is None or 0 <= seconds <= 86_400


def test_google_says_the_time_to_wait_in_the_body() -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"},
    ]
    text = "You exceeded your current quota, please check your plan and billing details."
    error = {
        "code": 429,
        "message": text,
        "status": "RESOURCE_EXHAUSTED",
        "details": details,
    }

    mapped = from_answer(provider="gemini", status=429, headers={}, body=[{"error": error}])

    assert type(mapped) is RateLimited
    assert mapped.retry_after_s == 34.07

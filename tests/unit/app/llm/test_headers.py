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

"""Headers of answers: the limits, and the time to wait in all its forms."""

from datetime import UTC, datetime
from typing import Any

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
        ({"retry-after": "3 s"}, 3.0),
        ({"retry-after": "2 minutes"}, 120.0),
        ({"retry-after": "5 seconds"}, 5.0),
        ({"retry-after": "PT5S"}, 5.0),
        ({"retry-after": "PT1M0.5S"}, 60.5),
        ({"retry-after": "P1M"}, None),  # a month is no number of seconds
        ({"retry-after": "1d"}, 86_400.0),
        ({"retry-after": "999999"}, 86_400.0),
        ({"retry-after": "1795248030"}, 30.0),
        ({"retry-after": "1795248030000"}, 30.0),
        ({"retry-after": "1767225600"}, 0.0),
        ({"retry-after": "100000000000000000000"}, None),
        ({"retry-after": "1e300"}, None),
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


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"retry_after": 5}, 5.0),
        ({"retry_after": 2.5}, 2.5),
        ({"retry_after": "3s"}, 3.0),
        ({"retry_after": True}, None),
        ({"retry_after": -1}, None),
        ({"retry_after": 10**400}, None),
        ({"details": [{"retryDelay": {"seconds": 5}}]}, 5.0),
        ({"details": [{"retryDelay": {"seconds": "5", "nanos": 500_000_000}}]}, 5.5),
        ({"details": [{"retryDelay": {"seconds": None}}]}, None),
        ({"metadata": {"headers": {"Retry-After": "7"}}}, 7.0),
        ({"metadata": {"headers": {"X-RateLimit-Limit": "7"}}}, None),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_body_says_the_time_to_wait(
    error: dict[str, Any], seconds: float | None, *, inside: bool
) -> None:
    error = {"code": 429, "message": "busy", **error}

    for body in ({"error": error}, [{"error": error}]) if inside else (error,):
        mapped = from_answer(provider="p", status=429, headers={}, body=body)

        assert mapped.retry_after_s == seconds


def test_a_time_to_wait_beside_the_error_counts_too() -> None:
    body = {"error": {"message": "busy"}, "retry_after": 4}

    assert from_answer(provider="p", status=429, headers={}, body=body).retry_after_s == 4


def test_the_header_comes_before_the_body() -> None:
    body = {"error": {"message": "busy", "retry_after": 4}}
    headers = {"retry-after": "9"}

    assert from_answer(provider="p", status=429, headers=headers, body=body).retry_after_s == 9


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

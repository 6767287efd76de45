"""Reads the headers of a provider's answer: the request id, the limits, and the time to wait."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LIMIT_HEADERS = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a request."""
    return headers.get("x-request-id") or headers.get("request-id")


def limit_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers about rate limits, with lower-case names."""
    lower = ((name.lower(), value) for name, value in headers.items())
    return {name: value for name, value in lower if name.startswith(_LIMIT_HEADERS)}


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Return the seconds to wait, by retry-after-ms or by retry-after (seconds or a date)."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is not None or not value:
        return seconds
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max((date - (now or datetime.now(UTC))).total_seconds(), 0.0)


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None

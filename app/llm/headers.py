"""Reads the headers of a provider's answer: the request id, the limits, and the time to wait."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

#: No caller waits longer before it asks again.
MAX_RETRY_AFTER_S = 86_400.0
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|[hms])")
_DURATION = re.compile(f"(?:{_DURATION_PART.pattern})+")
_LIMIT_HEADERS = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a request."""
    return headers.get("x-request-id") or headers.get("request-id")


def limit_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers about rate limits, with lower-case names."""
    lower = ((name.lower(), value) for name, value in headers.items())
    return {name: value for name, value in lower if name.startswith(_LIMIT_HEADERS)}


def retry_after_s(
    headers: Mapping[str, str], body: Any = None, *, now: datetime | None = None
) -> float | None:
    """Return the seconds to wait, at most a day, or None if the answer does not tell them.

    Args:
        headers: Headers of the answer. ``retry-after-ms`` has milliseconds; ``retry-after`` has
            seconds, a duration such as ``1m3.5s``, or a date of HTTP or of RFC 3339.
        body: The body of an error, in which Google's servers give a ``retryDelay``.
        now: The present time, with its zone.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds:
        return min(milliseconds / 1000, MAX_RETRY_AFTER_S)
    value = headers.get("retry-after") or _retry_delay(body)
    if not value:
        return None
    seconds = _seconds(value)
    if seconds is None:
        seconds = _duration(value)
    if seconds is None and (date := _date(value)):
        seconds = max((date - (now or datetime.now(UTC))).total_seconds(), 0.0)
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER_S)


def _retry_delay(body: Any) -> str | None:
    error = body.get("error", body) if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(delay, str):
            return delay
    return None


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _duration(value: str) -> float | None:
    """Read a duration such as 200ms, 3s or 1h2m3.5s."""
    if not _DURATION.fullmatch(value.strip()):
        return None
    parts = _DURATION_PART.findall(value)
    return math.fsum(float(number) * _UNITS[unit] for number, unit in parts)


def _date(value: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(value.strip())
        except (ValueError, OverflowError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None

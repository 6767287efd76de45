"""Reads the headers of a provider's answer: the request id, the limits, and the time to wait."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

#: No caller waits longer than this time before it asks again.
MAX_RETRY_AFTER_S = 86_400.0
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|d(?:ays?)?|h(?:ours?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)"
)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern}\s*)+")
_ISO_DURATION = re.compile(r"p(\d{1,9}d)?(?:t((?:[\d.]{1,19}[hms])+))?")
# A longer text is no time; it would need seconds.
_MAX_TIME_CHARS = 100
# A number that is at least this large is a time, in seconds or milliseconds since 1970.
_EPOCH_S = range(10**9, 10**10)
_EPOCH_MS = range(10**12, 10**13)
_LIMIT_HEADERS = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")
_RETRY_AFTER = frozenset({"retry_after", "retryafter", "retry_after_s", "retry_after_seconds"})


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a request."""
    return headers.get("x-request-id") or headers.get("request-id")


def limit_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers about rate limits, with lower-case names."""
    lower = ((name.lower(), value) for name, value in headers.items())
    return {name: value for name, value in lower if name.startswith(_LIMIT_HEADERS)}


def retry_after_s(
    headers: Mapping[str, str], body: Sequence[Any] = (), *, now: datetime | None = None
) -> float | None:
    """Return the seconds to wait (at most a day), or None if the answer does not tell a time.

    Args:
        headers: Headers of the answer. ``retry-after-ms`` has milliseconds. ``retry-after`` has
            seconds, a duration such as ``1m3.5s`` or ``PT5S``, or a time. A time is a date of HTTP
            or of RFC 3339, or the seconds since 1970.
        body: An error and the documents around it, with the error last. The error may have
            ``retry_after`` in seconds, Google's ``retryDelay``, or the headers of the provider
            behind a gateway.
        now: The present time, with its zone.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds:
        return min(milliseconds / 1000, MAX_RETRY_AFTER_S)
    now = now or datetime.now(UTC)
    given = (headers.get("retry-after"), *(_in_body(level) for level in reversed(body)))
    waits = (_wait_s(value, now) for value in given if value is not None)
    return next((min(wait, MAX_RETRY_AFTER_S) for wait in waits if wait is not None), None)


def _wait_s(value: Any, now: datetime) -> float | None:
    """Read the seconds to wait in any form."""
    if isinstance(value, Mapping):  # a duration of Protocol Buffers
        whole, nanos = _seconds(value.get("seconds", 0)), _seconds(value.get("nanos", 0))
        return None if whole is None or nanos is None else whole + nanos / 10**9
    seconds = _seconds(value)
    if seconds is not None:
        if int(seconds) in _EPOCH_MS:
            seconds /= 1000
        if int(seconds) in _EPOCH_S:
            return max(seconds - now.timestamp(), 0.0)
        return seconds if seconds < _EPOCH_S.start else None
    if not isinstance(value, str) or len(value) > _MAX_TIME_CHARS:
        return None
    seconds = _duration(value)
    if seconds is None and (date := _date(value)):
        seconds = max((date - now).total_seconds(), 0.0)
    return seconds


def _in_body(error: Any) -> Any:
    """Return the time to wait that an error tells, or None."""
    if not isinstance(error, Mapping):
        return None
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and detail.get("retryDelay") is not None:
            return detail["retryDelay"]
    metadata = _mapping(error.get("metadata"))
    for place in (error, metadata, _mapping(metadata.get("headers"))):
        for name, value in place.items():
            if str(name).lower().replace("-", "_") in _RETRY_AFTER and value is not None:
                return value
    return None


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _duration(value: str) -> float | None:
    """Read a duration such as 200ms, 3 s, 1h2m3.5s or PT5S."""
    value = value.strip().lower()
    if iso := _ISO_DURATION.fullmatch(value):
        value = "".join(filter(None, iso.groups()))
    if not _DURATION.fullmatch(value):
        return None
    parts = _DURATION_PART.findall(value)
    return math.fsum(
        float(number) * _UNITS[unit if unit == "ms" else unit[0]] for number, unit in parts
    )


def _date(value: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(value.strip())
        except (ValueError, OverflowError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None

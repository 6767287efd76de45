"""Credentials that expire, and the reading of the value that an operator's function returns."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

#: Lifetime of a token if the function does not say how long the token is valid.
UNKNOWN_LIFETIME_S = 300.0
_TOKEN = re.compile(r"[!-~]+")
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[ -~]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A token with its lifetime, returned by the function of a provider's ``credentials``.

    The function may also return a dict with the same keys, or the token alone as a string. The
    values are checked when they are used.

    Attributes:
        token: The token, without ``Bearer``; the token is sent in the header ``Authorization``.
        expires_in_s: Seconds for which the token is valid. If neither this number nor
            ``expires_at`` is given, the function is asked again after five minutes.
        expires_at: End of the token's lifetime; this end may take the place of ``expires_in_s``.
            The end is an aware datetime, or a number of seconds since 1970.
        headers: Further headers of the requests. These headers replace headers of the same names,
            even ``Authorization``.

    Example:
        def token() -> Credentials:
            answer = httpx.post("https://login.acme.example/token", timeout=10).json()
            return Credentials(token=answer["access_token"], expires_in_s=answer["expires_in"])
    """

    token: str = field(repr=False)
    expires_in_s: float | None = None
    expires_at: datetime | float | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


_FIELDS = tuple(each.name for each in fields(Credentials))


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorization:
    """Checked credentials, in the form in which a request carries them.

    Attributes:
        headers: The headers.
        secrets: The token, and the values of further headers.
        lifetime_s: Seconds for which the headers are valid.
    """

    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    lifetime_s: float


class NotCredentials(ValueError):
    """A function returned no credentials; the message completes "the function which ...".

    The message never has a part of the returned value, because this part may be the token.
    """


def read_credentials(found: Any) -> Authorization:
    """Check the value that a function has returned.

    Args:
        found: A token, Credentials, or a dict with the fields of Credentials.

    Returns:
        The headers of requests and the lifetime of these headers. The lifetime is negative if the
        token has expired.

    Raises:
        NotCredentials: If the value is anything else.
    """
    if isinstance(found, Credentials):
        found = {name: getattr(found, name) for name in _FIELDS}
    elif isinstance(found, str):
        found = {"token": found}
    if not isinstance(found, Mapping):
        raise NotCredentials(
            f"returned a value of the type {type(found).__name__}: return the token as a string, a "
            "dict or app.Credentials"
        )
    if not set(found) <= set(_FIELDS):
        raise NotCredentials(f"returned a dict with other keys than {', '.join(_FIELDS)}")
    token = _text(found.get("token"))
    if not _TOKEN.fullmatch(token):
        raise NotCredentials(
            "returned no token that a header can carry: return the bare token, without 'Bearer'"
        )
    further = _headers(found.get("headers") or {})
    return Authorization(
        headers={"Authorization": f"Bearer {token}"} | further,
        secrets=(token, *further.values()),
        lifetime_s=_lifetime_s(found.get("expires_in_s"), found.get("expires_at")),
    )


def _headers(given: Any) -> dict[str, str]:
    """Check further headers; a header Authorization gets the spelling of the token's header."""
    headers = dict(given) if isinstance(given, Mapping) else {"": ""}
    for name, value in headers.items():
        named = isinstance(name, str) and _HEADER_NAME.fullmatch(name)
        if not named or not _HEADER_VALUE.fullmatch(_text(value)):
            raise NotCredentials("returned wrong headers: return a dict of strings in ASCII")
    return {
        "Authorization" if name.lower() == "authorization" else name: _text(value)
        for name, value in headers.items()
    }


def _lifetime_s(expires_in_s: Any, expires_at: Any) -> float:
    if expires_in_s is not None and expires_at is not None:
        raise NotCredentials("returned both expires_in_s and expires_at: return one of them")
    if isinstance(expires_at, datetime):
        if expires_at.tzinfo is None:
            raise NotCredentials(
                "returned an expires_at without a time zone: write expiry.replace(tzinfo=UTC), if "
                "the time is in UTC"
            )
        expires_at = expires_at.timestamp()
    if expires_at is not None:
        return _seconds("expires_at", expires_at) - time.time()
    if expires_in_s is not None:
        return _seconds("expires_in_s", expires_in_s)
    return UNKNOWN_LIFETIME_S


def _seconds(name: str, value: Any) -> float:
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or not math.isfinite(seconds := float(value)):
        raise NotCredentials(f"returned an {name} that is no number of seconds")
    return seconds


def _text(value: Any) -> str:
    """Return a string without the white space around it, such as the end of a file's line."""
    return value.strip() if isinstance(value, str) else ""

"""The rules for HTTP headers that come from workflows and models, by RFC 9110.

A name that is no token, such as ``"Host "``, could pass a check by name and still reach the other
server as the header that the check refuses.
"""

import re
from collections.abc import Mapping
from typing import Any

from app.domain.suggestions import shortened

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"(?:[!-~\x80-\U0010ffff](?:[\t -~\x80-\U0010ffff]*[!-~\x80-\U0010ffff])?)?")
#: Headers that decide where a request ends, to which host it goes, or how a connection is used.
_CONNECTION = frozenset(
    (
        *("connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te"),
        *("trailer", "transfer-encoding", "upgrade"),
    )
)


def name_problem(name: Any) -> str | None:
    """Return the reason why a request must not have a header with this name, or None."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        return "is not a valid name of a header: use letters, digits and hyphens"
    if name.lower() in _CONNECTION or name.lower().startswith("proxy-"):
        return "belongs to the connection, which sets it: remove it"
    return None


def value_problem(value: Any) -> str | None:
    """Return the reason why a header must not have this value, or None; the value is not shown."""
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        return "is not a valid value of a header: give one line of text without spaces around it"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "contains half a surrogate pair: remove it"
    return None


def check_headers(headers: Mapping[str, Any]) -> None:
    """Refuse headers if a name or a value is not allowed.

    Raises:
        ValueError: If a header is refused; the message has the header's name, but not its value.
    """
    for name, value in headers.items():
        if problem := name_problem(name) or value_problem(value):
            raise ValueError(f"header {shortened(name)} {problem}")

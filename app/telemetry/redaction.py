"""Takes secrets out of text before it is logged or stored: known values, and what looks like a key.

What looks like a key is found by its form, so text that only happens to have one is hidden, too,
and a secret without any form is hidden only if its value is known.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "[redacted]"
#: Shorter values are found in ordinary words, and would make a log unreadable.
MIN_SECRET_CHARS = 8
#: No alternative may begin at many places of one run of characters: the time is linear.
KEYS = re.compile(
    r"""
      \b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}                     # OpenAI, Anthropic and their likes
    | \bgh[oprsu]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \bxox[a-z]-[A-Za-z0-9-]{10,}                          # Slack
    | \bA(?:KIA|SIA)[A-Z0-9]{16}\b | \bAIza[A-Za-z0-9_-]{30,}  # Amazon, Google
    | (?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*  # JSON Web Tokens
    | -----BEGIN[ ][A-Z ]{0,40}PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]{0,40}PRIVATE[ ]KEY-----|\Z)
    | (?<=://)(?P<user>[^\s/@:'"]*):[^\s/@'"]+(?=@)         # the password of a URL
    | (?P<scheme>\b(?:bearer|basic)\s{1,8})[A-Za-z0-9._~+/=-]{12,}
    | (?P<name>(?:api[_-]?key|secret|password|passwd|authorization|access[_-]?token)
        ["']?\s*[:=]\s*["']?)(?!bearer\b|basic\b)[^\s"',;&}\])]{8,}
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


class Redactor:
    """Hides secrets.

    Args:
        secrets: Values that must not be seen; those of fewer than eight characters are ignored.
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        forms = {
            form
            for value in secrets
            if len(value) >= MIN_SECRET_CHARS
            for form in (value, quote(value, safe=""), unquote(value), repr(value)[1:-1])
        }
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """A text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return KEYS.sub(_hide, text)

    def value(self, value: Any) -> Any:
        """A value of a log line without secrets: objects become text, containers are copied."""
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(item) for name, item in value.items()}
        if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
            return [self.value(item) for item in value]
        return self.text(str(value))

    def __call__(self, _logger: Any, _method: str, line: Mapping[str, Any]) -> dict[str, Any]:
        """As a processor of structlog: every field of a line, tracebacks included."""
        return {name: self.value(value) for name, value in line.items()}


def _hide(found: re.Match[str]) -> str:
    for group in ("scheme", "name"):
        if before := found[group]:
            return f"{before}{HIDDEN}"
    user = found["user"]
    return HIDDEN if user is None else f"{user}:{HIDDEN}"

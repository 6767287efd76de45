"""Takes secrets out of text before the text is logged or stored.

Two kinds of secrets are hidden: known values, and strings in the form of a key. A string that has
this form is hidden even if it is not a key. A secret without a recognisable form is hidden only if
its value is known.

Most known values are in the settings. A process learns more values while it works, for example
tokens that are renewed every hour (see ``learn``). All redactors of the process hide these values,
too.
"""

import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "[redacted]"
#: Shorter values are not hidden. Short values occur in ordinary words, so the log would be
#: unreadable.
MIN_SECRET_CHARS = 8
#: To keep the time linear, no alternative may match at many positions of one series of characters.
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


#: The newest secrets that this process has learned, in all their forms. Older secrets have expired.
_learned: deque[str] = deque(maxlen=100)


def learn(secret: str) -> None:
    """Hide a secret from now on, in every text of this process; short values are ignored."""
    for form in _forms(secret):
        if form not in _learned:
            _learned.append(form)


def without_learned(text: str) -> str:
    """Return the text without the secrets that this process has learned."""
    for secret in sorted(_learned, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _forms(secret: str) -> set[str]:
    """Return all forms in which a text may contain a secret; none if the secret is too short."""
    if len(secret) < MIN_SECRET_CHARS:
        return set()
    return {secret, quote(secret, safe=""), unquote(secret), repr(secret)[1:-1]}


class Redactor:
    """Hides secrets in text.

    Args:
        secrets: Values to hide; values of fewer than eight characters are ignored.

    Example:
        redactor = Redactor(settings.secret_values())
        redactor.text("Bearer sk-abcdefghijklmnop0123")  # 'Bearer [redacted]'
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        forms = {form for value in secrets for form in _forms(value)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        if _learned:
            text = without_learned(text)
        return KEYS.sub(_hide, text)

    def value(self, value: Any) -> Any:
        """Return a value without secrets; objects become strings, and containers are copied."""
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(item) for name, item in value.items()}
        if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
            return [self.value(item) for item in value]
        return self.text(str(value))

    def __call__(self, _logger: Any, _method: str, line: Mapping[str, Any]) -> dict[str, Any]:
        """Hide secrets in every field of a line, including tracebacks; structlog calls this."""
        return {name: self.value(value) for name, value in line.items()}


def _hide(found: re.Match[str]) -> str:
    for group in ("scheme", "name"):
        if before := found[group]:
            return f"{before}{HIDDEN}"
    user = found["user"]
    return HIDDEN if user is None else f"{user}:{HIDDEN}"

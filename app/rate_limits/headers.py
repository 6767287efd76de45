"""Reads the rate-limit headers of providers, and ignores every doubtful value."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_HEADER = re.compile(
    r"(?:x|anthropic)-ratelimit-(?:"
    r"(?P<field>limit|remaining|reset)-(?P<of>requests|tokens|project-tokens)"  # OpenAI
    r"|(?P<of2>requests|tokens|input-tokens|output-tokens)-(?P<field2>limit|remaining|reset))"
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: If the full refill of a limit takes longer than this, the limit is not a limit per minute.
_LONGEST_PERIOD_S = 600.0
UNKNOWN = -1.0


@dataclass(frozen=True, slots=True)
class HeaderLimit:
    """One limit per minute that the headers of an answer contain.

    Attributes:
        tier: Name of the tier.
        limit: The provider's limit; -1 if unknown.
        remaining: The amount that was left after the provider had accepted the request; -1 if
            unknown.
    """

    tier: str
    limit: float
    remaining: float


def limits_in(headers: Mapping[str, str]) -> Iterator[HeaderLimit]:
    """Yield the limits per minute that the headers have.

    Headers are recognized by their form and not by the provider, because gateways pass on the
    headers of other providers. Some headers are ignored:

    - values that are absent, unreadable, -1 or 0/0,
    - OpenAI's headers about a limit per day; only the numbers in these headers show that the limit
      is per day,
    - Anthropic's ``tokens`` if the headers also give a limit of input tokens or of output tokens,
      because ``tokens`` then only repeats the tightest of these limits.
    """
    found: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        if match := _HEADER.fullmatch(name.lower()):
            of = (match["of"] or match["of2"]).replace("-", "_")
            found.setdefault(of, {})[match["field"] or match["field2"]] = value
    if "input_tokens" in found or "output_tokens" in found:
        found.pop("tokens", None)
    for of, fields in found.items():
        limit, remaining = _count(fields.get("limit")), _count(fields.get("remaining"))
        if limit == 0:  # Azure: 0/0
            continue
        if (limit, remaining) == (UNKNOWN, UNKNOWN) or _is_long(limit, remaining, fields):
            continue
        yield HeaderLimit(of.removeprefix("project_"), limit, remaining)


def _count(value: str | None) -> float:
    try:
        count = float(value) if value is not None else UNKNOWN
    except ValueError:
        return UNKNOWN
    return count if 0 <= count < float("inf") else UNKNOWN


def _is_long(limit: float, remaining: float, fields: Mapping[str, str]) -> bool:
    reset_s = sum(
        float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(fields.get("reset", ""))
    )
    if "T" in fields.get("reset", "") or min(limit, remaining) < 0 or limit <= remaining:
        return False
    return limit * reset_s / (limit - remaining) > _LONGEST_PERIOD_S

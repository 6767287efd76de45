"""Several usages of one stream: none of them costs more than the counts that are booked.

Some servers count while they generate, and some servers contradict themselves. The provider bills
one of the usages, and nothing tells which. So the counts of a stream never cost less than one of
the usages. There is one exception. A running count of the prompt often has no count of cached
tokens; if a later usage has this count, the tokens are cached.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from app.domain.usage import Usage
from app.llm.usage import Counts, openai_counts
from app.llm.wire import grown, tells_discount

_PROMPT = ("input_tokens", "cached_tokens", "cache_write_tokens", "cache_write_1h_tokens")
_NO_PROMPT = dict.fromkeys(_PROMPT, 0)


class Reports:
    """The usages of a stream in the form of chat completions, or of responses.

    Totals never shrink. Cached tokens are a discount in the prompt. A discount counts only as far
    as the last count of the prompt has it, and as far as each usage has it that tells any discount.

    Attributes:
        raw: The merged usages, for the record.

    Example:
        reports = Reports()
        reports.add({"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 900}})
        reports.add({"prompt_tokens": 1000, "completion_tokens": 5})
        reports.counts(produced=True).usage.cached_tokens  # 0
    """

    def __init__(self) -> None:
        self.raw: dict[str, Any] = {}
        self._counted = False
        # The last usage that counts the prompt; and counts that cost at least as much as each
        # usage. Of these usages, only those that tell a discount count the prompt.
        self._last = self._told = Usage()

    def add(self, usage: Mapping[str, Any]) -> None:
        """Add the usage of an event."""
        # Some servers begin with zeros, which are no counts, also of a discount.
        self.raw = grown(self.raw, usage) if self._counted else {**self.raw, **usage}
        counts = openai_counts(usage, produced=False)
        self._counted = self._counted or bool(counts.usage.total_tokens or counts.total)
        if counts.prompt:
            self._last = counts.usage
        is_whole = counts.prompt and tells_discount(usage)
        told = counts.usage if is_whole else replace(counts.usage, **_NO_PROMPT)
        self._told = _costliest(self._told, told)

    def counts(self, *, produced: bool) -> Counts:
        """Return the counts, which cost at least as much as the usages.

        Args:
            produced: As in ``openai_counts``.
        """
        counts = openai_counts(self.raw, produced=produced)
        return replace(counts, usage=_costliest(counts.usage, self._told, self._last))


def largest(*usages: Usage) -> Usage:
    """Return the largest of each count.

    Example:
        >>> largest(Usage(input_tokens=9), Usage(output_tokens=2)).total_tokens
        11
    """
    names = (each.name for each in fields(Usage))
    return Usage(**{name: max(getattr(usage, name) for usage in usages) for name in names})


def _costliest(*usages: Usage) -> Usage:
    """Return the counts of a prompt, and an output, that cost at least as much as each of these.

    Written tokens cost the most, and cached tokens cost the least. No prompt is larger than the
    largest of these prompts.
    """
    most = largest(*usages)
    prompt = max(usage.prompt_tokens for usage in usages)
    written = max(usage.cache_write_tokens + usage.cache_write_1h_tokens for usage in usages)
    full = min(most.input_tokens, prompt - written)
    return replace(
        most,
        input_tokens=full,
        cached_tokens=prompt - written - full,
        cache_write_tokens=written - most.cache_write_1h_tokens,
    )

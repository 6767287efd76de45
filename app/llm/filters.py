"""Reads what a provider's filter says of a prompt or of an answer, beside the model's own words.

A filter that has blocked the prompt leaves no answer at all, so these fields are the only sign that
this is a refusal and not a failure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# The fields beside the choices that say whether the prompt was blocked: Google's and Azure's.
_FEEDBACK = ("prompt_feedback", "promptFeedback")
_OF_PROMPT = ("prompt_filter_results", "prompt_annotations")
_RESULTS = ("content_filter_results", "content_filter_result")
_REASONS = ("block_reason", "blockReason")
_MESSAGES = ("block_reason_message", "blockReasonMessage")
_NO_REASONS = frozenset({"", "0", "none", "block_reason_unspecified", "blocked_reason_unspecified"})


def verdicts_in(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an answer, or of an event, that tell of a filter of the prompt."""
    return {name: document[name] for name in (*_FEEDBACK, *_OF_PROMPT) if document.get(name)}


def blocked_prompt(document: Mapping[str, Any]) -> str | None:
    """Return the words for a prompt that a filter has blocked, or None if none has.

    Example:
        >>> blocked_prompt({"choices": [], "promptFeedback": {"blockReason": "SAFETY"}})
        "the provider's filter blocked the prompt: SAFETY"
    """
    reasons = list[str]()
    for name in _FEEDBACK:
        feedback = document.get(name)
        if isinstance(feedback, Mapping):
            reasons += _reasons_in(feedback)
    for name in _OF_PROMPT:
        results = document.get(name)
        for each in results if isinstance(results, list) else ():
            reasons += _filtered_in(each)
    return _words("prompt", reasons)


def blocked_answer(choice: Mapping[str, Any]) -> str | None:
    """Return the words for a choice whose text a filter has blocked, or None if none has."""
    if not any(map(choice.get, _RESULTS)):  # every chunk of a stream passes here
        return None
    return _words("answer", _filtered_in(choice))


def blocked_response(response: Mapping[str, Any]) -> str | None:
    """Return the words for a response of Azure whose prompt or text a filter has blocked."""
    filters = response.get("content_filters")
    for each in filters if isinstance(filters, list) else ():
        if isinstance(each, Mapping) and each.get("blocked") is True:
            part = "prompt" if each.get("source_type") == "prompt" else "answer"
            return _words(part, _filtered_in(each) or ["content_filter"])
    return None


def _words(part: str, reasons: Iterable[str]) -> str | None:
    told = ", ".join(dict.fromkeys(reasons))
    return f"the provider's filter blocked the {part}: {told}" if told else None


def _reasons_in(feedback: Mapping[str, Any]) -> list[str]:
    reason = next(filter(None, map(feedback.get, _REASONS)), None)
    if reason is None or str(reason).lower() in _NO_REASONS:
        return []
    message = next(filter(None, map(feedback.get, _MESSAGES)), None)
    return [f"{reason} ({message})" if isinstance(message, str) else str(reason)]


def _filtered_in(holder: Any) -> list[str]:
    """Return the categories for which a filter has blocked a text; to detect is not to block."""
    if not isinstance(holder, Mapping):
        return []
    results = (holder.get(name) for name in _RESULTS)
    return [
        str(category)
        for result in results
        if isinstance(result, Mapping)
        for category, verdict in result.items()
        if any(
            isinstance(each, Mapping) and each.get("filtered") is True
            for each in (verdict if isinstance(verdict, list) else [verdict])
        )
    ]

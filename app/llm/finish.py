"""The words with which providers say how an answer ended; an unknown word is never success.

Gateways and compatible servers pass on the words of the server behind them, so both protocols
share one table.
"""

from typing import Literal

from app.errors import ConnectionFailed, Overloaded, ProviderError, ServerFailure

#: The ends of an answer that is not a failure.
Finish = Literal["stop", "length", "tool_calls", "content_filter", "pause"]

_WORDS: dict[Finish, tuple[str, ...]] = {
    "stop": (
        *("stop", "end_turn", "stop_sequence", "complete", "completed", "finished"),
        *("eos", "eos_token", "end_of_turn", "end_of_text"),
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_new_tokens", "model_length"),
        *("max_length", "token_limit", "context_length", "model_context_window_exceeded"),
    ),
    "content_filter": (
        *("content_filter", "content_filtered", "refusal", "safety", "sensitive", "moderation"),
        *("recitation", "blocklist", "prohibited_content", "spii", "image_safety"),
        *("guardrail_intervened", "guardrail", "error_toxic"),
    ),
}
_FINISHES: dict[str, Finish] = {word: end for end, words in _WORDS.items() for word in words}
# After ten reads of one request's prompt, Anthropic's API waits for the next request.
_PAUSE = "pause_turn"
_FAILURES: dict[str, type[ProviderError]] = {
    "insufficient_system_resource": Overloaded,
    "engine_overloaded": Overloaded,
    "overloaded": Overloaded,
    "network_error": ConnectionFailed,
    "timeout": ConnectionFailed,
}


def finish_of(word: object, *, may_pause: bool = False) -> Finish | None:
    """Return the end that a provider's word means, or None if the word means a failure.

    A word that is missing is no failure, because some servers give no word in a whole answer.

    Args:
        word: The provider's word.
        may_pause: Whether the provider runs tools of its own, and may pause before it is done.

    Example:
        >>> finish_of("MAX_TOKENS"), finish_of(None), finish_of("network_error")
        ('length', 'stop', None)
    """
    if may_pause and word == _PAUSE:
        return "pause"
    return "stop" if word is None else _FINISHES.get(_plain(word))


def failure_of(word: object) -> type[ProviderError]:
    """Return the class of the failure that a provider's word means."""
    return _FAILURES.get(_plain(word), ServerFailure)


def _plain(word: object) -> str:
    """Return a word in lower case, without an enumeration's name before it or a reason after it."""
    return str(word).partition(":")[0].strip().rpartition(".")[2].lower()

"""The words with which providers say how an answer ended; an unknown word is never success.

Gateways and compatible servers pass on the words of the server behind them, so both protocols
share one table.
"""

import re
from typing import Any, Literal

from app.errors import ConnectionFailed, Overloaded, ProviderError, ServerFailure

#: The ends of an answer that is not a failure.
Finish = Literal["stop", "length", "tool_calls", "content_filter", "pause"]

_WORDS: dict[Finish, tuple[str, ...]] = {
    "stop": (
        *("stop", "end_turn", "stop_sequence", "complete", "completed", "finished"),
        *("eos", "eos_token", "end_of_turn", "end_of_text", "end", "stop_str", "stop_word"),
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_completion_tokens"),
        "model_length",
        *("max_length", "token_limit", "context_length", "model_context_window_exceeded"),
    ),
    "content_filter": (
        *("content_filter", "content_filtered", "refusal", "safety", "sensitive", "moderation"),
        *("recitation", "blocklist", "prohibited_content", "spii", "image_safety", "language"),
        *("image_prohibited_content", "image_recitation", "model_armor", "policy_violation"),
        *("guardrail_intervened", "guardrail", "error_toxic", "content_policy_violation"),
    ),
}
_FINISHES: dict[str, Finish] = {word: end for end, words in _WORDS.items() for word in words}
# After Anthropic's API has read one request's prompt ten times, the API waits for the next request.
_PAUSE = "pause_turn"
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_FAILURES: dict[str, type[ProviderError]] = {
    "insufficient_system_resource": Overloaded,
    "engine_overloaded": Overloaded,
    "overloaded": Overloaded,
    "network_error": ConnectionFailed,
    "timeout": ConnectionFailed,
}


def finish_of(word: object, *, may_pause: bool = False) -> Finish | None:
    """Return the end that a provider's word means, or None if the word means a failure.

    A missing word is no failure, because some servers give no word in a whole answer.

    Args:
        word: The provider's word.
        may_pause: Whether the provider runs its own tools, and may pause before the answer is done.

    Example:
        >>> finish_of("MAX_TOKENS"), finish_of(None), finish_of("network_error")
        ('length', 'stop', None)
    """
    if may_pause and word == _PAUSE:
        return "pause"
    if word is None:
        return "stop"
    plain, _, reason = str(word).partition(":")
    finish = _FINISHES.get(_plain(plain))
    return finish if not reason or finish == "content_filter" else None


def worse(first: object, second: object) -> Any:
    """Return the word that means the worse end, because some servers send several words.

    Example:
        >>> worse("length", "stop"), worse("stop", "error"), worse(None, "stop")
        ('length', 'error', 'stop')
    """
    if not first or not second:
        return first or second or None
    ranks = {"stop": 0, "tool_calls": 1, "length": 2, "content_filter": 3, None: 4}
    return first if ranks[finish_of(first)] >= ranks[finish_of(second)] else second


def failure_of(word: object) -> type[ProviderError]:
    """Return the class of the failure that a provider's word means."""
    return _FAILURES.get(_plain(word), ServerFailure)


def _plain(word: object) -> str:
    """Return a word in snake case, without an enumeration's name in front of the word."""
    bare = str(word).strip().rpartition(".")[2]
    return _HUMP.sub("_", bare).replace("-", "_").replace(" ", "_").lower()

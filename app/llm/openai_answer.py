"""Reads a chat completion, in the forms in which OpenAI and compatible servers write it."""

from collections.abc import Mapping
from typing import Any

from app.llm.answers import Answer
from app.llm.base import ToolCall
from app.llm.filters import blocked_answer, blocked_prompt
from app.llm.finish import finish_of
from app.llm.models import generates_openly, openai_samples
from app.llm.usage import openai_counts
from app.llm.wire import content_text, error_in, grown, joined, write_json

#: The tags around a thought in the text of a message.
THOUGHT_START, THOUGHT_END = "<thought>", "</thought>"
# ``_REASONING``: these parameters ask the models of compatible servers to reason, unless the
# parameters are false or empty. ``_LEAVING_OUT``: with these parameters, a server leaves the
# reasoning out of the answer.
_REASONING = (
    *("reasoning", "thinking", "enable_thinking", "thinking_budget", "thinking_mode"),
    "chat_template_kwargs",
)
_LEAVING_OUT = ("include_reasoning", "reasoning_format", "reasoning_split")
# Fields of reasoning that cannot be read, so that the length of the reasoning is unknown.
_ENCRYPTED = ("encrypted_content", "reasoning_signature", "redacted_thinking")
# Parts of a message that the text and the calls tell, or that no provider needs again.
_TOLD = frozenset(
    {"role", "content", "tool_calls", "function_call", "refusal", "annotations", "audio"}
)
_TOLD_OF_CALL = frozenset({"id", "type", "index", "function"})
_EMPTY: tuple[Any, ...] = (None, "", [], {})
#: The names of the usage, Google's own among them.
USAGES = ("usage", "usageMetadata", "usage_metadata")


def read_completion(answer: Mapping[str, Any]) -> Answer:
    """Read a chat completion.

    Raises:
        Exception: One of ``PROTOCOL_ERRORS``, if the answer is no chat completion.
    """
    choice = _choice(answer)
    message = choice["message"]
    calls = [_read_call(call) for call in _calls(message)]
    text, refusal = without_thought(message), content_text(message.get("refusal") or None)
    raw_usage = usage_in(answer, choice)
    counts = openai_counts(raw_usage, produced=bool(text or calls))
    if not (text or calls) and (blocked := blocked_prompt(answer)):
        refusal = refusal or blocked
        counts = counts.without_output()
    return Answer(
        text=text,
        calls=calls,
        word=_word(choice),
        model=answer.get("model"),
        counts=counts,
        raw_usage=raw_usage,
        original=_original(message),
        refusal=refusal or blocked_answer(choice),
        error=error_in(answer.get("error")) or error_in(choice.get("error")),
        facts={"service_tier": answer.get("service_tier")},
        shown=message,
        hides=_hides_reasoning(message),
    )


def is_thought(message: Mapping[str, Any]) -> bool:
    """Return whether a message, or a piece of a message, begins with a thought in tags (Gemini)."""
    google = (message.get("extra_content") or {}).get("google") or {}
    return bool(google.get("thought"))


def without_thought(message: Mapping[str, Any]) -> str:
    """Return the text of a message, without the part that the message marks as a thought."""
    text = content_text(message.get("content"))
    begins = is_thought(message) and text.lstrip().startswith(THOUGHT_START)
    return text.partition(THOUGHT_END)[2] if begins else text


def usage_in(answer: Mapping[str, Any], choice: Any = None) -> Mapping[str, Any]:
    """Return the usage of an answer or of a chunk; some servers put the usage elsewhere."""
    own = answer.get("x_groq")
    places = (
        own.get("usage") if isinstance(own, dict) else None,
        choice.get("usage") if isinstance(choice, dict) else None,
        *map(answer.get, USAGES),
    )
    found: Mapping[str, Any] = {}
    for usage in places:
        if isinstance(usage, dict):
            found = grown(found, usage)
    return found


def hides(body: Mapping[str, Any]) -> bool:
    """Return whether the answer to a request may leave out a part of the generated text."""
    effort = body.get("reasoning_effort")
    asked = effort not in (None, "none") or any(body.get(name) for name in _REASONING)
    asked = asked or any(name in body for name in _LEAVING_OUT)
    return asked or not openai_samples(body["model"], effort) or not generates_openly(body["model"])


def _hides_reasoning(message: Mapping[str, Any]) -> bool:
    """Return whether a message has reasoning that is encrypted."""
    if any(message.get(name) for name in _ENCRYPTED):
        return True
    details = message.get("reasoning_details")
    return isinstance(details, list) and any(
        isinstance(part, dict) and (part.get("data") or part.get("encrypted_content"))
        for part in details
    )


def _word(choice: Mapping[str, Any]) -> Any:
    """Return the word for the end; some gateways say "stop" beside the native word for a cut."""
    details = choice.get("finish_details")
    elsewhere = details.get("type") if isinstance(details, dict) else None
    word = choice.get("finish_reason") or elsewhere or None
    native = choice.get("native_finish_reason")
    return native if native and finish_of(native) == "length" and finish_of(word) else word


def _choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first choice; an answer with usage but no choice is a failure that has a price."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        choice = {}
    word, message = choice.get("finish_reason"), choice.get("message")
    if isinstance(message, dict) and (word or message.keys() - {"role"}):
        return choice
    if not isinstance(message, dict):
        found = choice.get("delta"), {"content": choice.get("text")}
        message = next(
            (each for each in found if isinstance(each, dict) and any(each.values())), {}
        )
        if message:
            return {**choice, "message": message}
    reported = error_in(answer.get("error")) or error_in(choice.get("error"))
    counted = openai_counts(usage_in(answer), produced=False).prompt
    if not reported and (blocked_prompt(answer) or blocked_answer(choice)):
        return {**choice, "message": {}, "finish_reason": word or "content_filter"}
    if not (reported or counted or word):
        raise ValueError("an answer without a message")
    # If there is no message, the word for the end counts only if the word explains the reason.
    told = word if finish_of(word) != "stop" else None
    return {"message": {}, "finish_reason": told or "no message", "error": reported}


def _calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    if isinstance(calls, dict) and calls:
        return [calls]
    if not calls and isinstance(function := message.get("function_call"), dict):
        return [{"function": function}]  # the form that is older than tools
    return [call for call in calls or () if call]


def _read_call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or call
    id_, name = call.get("id"), function["name"]
    return ToolCall(
        id=id_ if isinstance(id_, str) else "",
        name=joined([name]),
        arguments=_arguments(function.get("arguments")),
    )


def _arguments(given: Any) -> str:
    """Return arguments as a string of JSON; some servers give an object, or nothing."""
    if isinstance(given, str):
        return "{}" if given.strip() in ("", "null") else joined([given])
    return "{}" if given is None else write_json(given)


def _original(message: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the message without empty parts; None if it has nothing but text and calls."""
    calls = [call for call in _calls(message) if isinstance(call, dict)]
    more = {key for key, value in message.items() if key not in _TOLD and value not in _EMPTY}
    in_calls = any(
        key not in _TOLD_OF_CALL and value not in _EMPTY
        for call in calls
        for key, value in call.items()
    )
    if not more and not in_calls and not isinstance(message.get("content"), list):
        return None
    kept = {key: message[key] for key in message if key in more}
    kept |= {"role": "assistant", "content": message.get("content") or None}
    if calls:
        kept["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in calls
        ]
    return kept

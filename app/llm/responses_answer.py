"""Reads a response of OpenAI's Responses API, also in the forms that other servers write."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.llm.answers import Answer
from app.llm.citations import cited
from app.llm.filters import blocked_prompt, blocked_response
from app.llm.finish import finish_of
from app.llm.models import generates_openly, openai_samples
from app.llm.responses_items import (
    PROGRAM,
    annotations_in,
    calls_in,
    is_plain,
    items_in,
    refusal_in,
    text_in,
    to_send_back,
)
from app.llm.usage import responses_counts
from app.llm.wire import count_of, error_in

#: Types of items that show all that the model has generated.
SHOWN = frozenset({"message", "function_call"})
_FREE_ACTIONS = frozenset({"open_page", "find_in_page"})


def read_response(answer: Mapping[str, Any]) -> Answer:
    """Read a response.

    Raises:
        Exception: One of ``PROTOCOL_ERRORS``, if the answer is no response.
    """
    error, usage = error_in(answer.get("error")), answer.get("usage")
    raw_usage = usage if isinstance(usage, dict) else {}
    blocked = blocked_response(answer) or blocked_prompt(answer)
    told = error or answer.get("status") or "output_text" in answer or blocked
    items = [] if answer.get("output") is None and told else items_in(answer)
    text, calls = text_in(items) or _alone(answer), calls_in(items)
    return Answer(
        text=text,
        calls=calls,
        word=_word(answer, blocked=blocked is not None),
        model=answer.get("model"),
        counts=responses_counts(raw_usage, produced=bool(text or calls)),
        raw_usage=raw_usage,
        original=None if all(map(is_plain, items)) else list(map(to_send_back, items)),
        refusal=refusal_in(items) or blocked,
        error=error,
        facts={
            "service_tier": answer.get("service_tier"),
            "citations": cited(annotations_in(items)),
        },
        web_searches=_web_searches(answer, items),
        containers=_containers(items),
        ran_programs=any(item.get("type") == PROGRAM for item in items),
        shown=items,
        hides=any(item.get("type") not in SHOWN for item in items),
    )


def hides(body: Mapping[str, Any]) -> bool:
    """Return whether the answer to a request may leave out a part of the generated text."""
    reasoning = body.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    model, asked = body["model"], effort not in (None, "none")
    return asked or not openai_samples(model, effort) or not generates_openly(model)


def _web_searches(answer: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of searches that are billed; pages that the model opens are free."""
    usage = answer.get("tool_usage")
    told = usage.get("web_search") if isinstance(usage, Mapping) else None
    count = count_of(told.get("num_requests")) if isinstance(told, Mapping) else None
    return sum(map(_is_search, items)) if count is None else count


def _containers(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the containers in which programs ran, each once."""
    ids = (item.get("container_id") for item in items if item.get("type") == PROGRAM)
    return list(dict.fromkeys(id_ for id_ in ids if id_ and isinstance(id_, str)))


def _is_search(item: Mapping[str, Any]) -> bool:
    action = item.get("action")
    kind = action.get("type") if isinstance(action, Mapping) else None
    is_call = item.get("type") == "web_search_call" and item.get("status") != "failed"
    return is_call and kind not in _FREE_ACTIONS


def _word(answer: Mapping[str, Any], *, blocked: bool) -> str | None:
    """Return the word for the end; an incomplete response may have a reason for its state."""
    status, details = answer.get("status"), answer.get("incomplete_details")
    if blocked and status in (None, "completed", "incomplete"):
        return "content_filter"
    if status is None or status == "completed":
        return None if status is None else "stop"
    reason = details.get("reason") if isinstance(details, dict) else None
    if status == "incomplete" and finish_of(reason) in ("length", "content_filter"):
        return str(reason)
    return f"status {status}" + (f" ({reason})" if reason else "")


def _alone(answer: Mapping[str, Any]) -> str:
    """Return the text of an answer if this text stands only beside the answer's items."""
    text = answer.get("output_text")
    return text if isinstance(text, str) else ""

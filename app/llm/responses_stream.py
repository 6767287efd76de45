"""Builds a response of OpenAI's Responses API from the events of its stream."""

import contextlib
from collections.abc import Mapping
from typing import Any

from app.domain.usage import Usage
from app.llm.models import openai_samples
from app.llm.streams import PROTOCOL_ERRORS, Assembly, text_of
from app.llm.usage import responses_usage

_STARTS = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
# For each type of delta of generated text: the field of the item's last part that has the text.
_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "arguments",
    "response.reasoning_summary_text.delta": "",
    "response.reasoning_text.delta": "",
}
_SHOWN = frozenset({"message", "function_call"})


class ResponsesAssembly(Assembly):
    """Builds a response from the events of its stream.

    The last event has the whole response with its usage. Some servers leave the items out of that
    event; then the items are those of the events before it. Events of unknown types are skipped,
    because new types are added without a new version of the API.

    Args:
        body: Body of the request.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        effort = (body.get("reasoning") or {}).get("effort")
        asked = effort not in (None, "none")
        super().__init__(hidden=asked or not openai_samples(body["model"], effort))
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        # The pieces of each item's text, by the item's index and the name of the text.
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._error: Mapping[str, Any] | None = None

    def add(self, event: Any) -> str:
        """See ``Assembly.add``."""
        kind = event["type"]
        if kind in _STARTS or kind in _ENDS:
            self._take(dict(event["response"]), last=kind in _ENDS)
        elif kind == "error":
            # The response that failed may still follow, with its usage.
            inner = event.get("error")
            self._error, self.complete = inner if isinstance(inner, Mapping) else event, True
        elif kind == "response.output_item.added":
            self._start_item(_index(event), dict(event["item"]))
        elif kind == "response.output_item.done":
            self._items[_index(event)] = dict(event["item"])
        elif kind in _DELTAS:
            return self._add_delta(event, _DELTAS[kind])
        return ""

    def answer(self) -> dict[str, Any]:
        """See ``Assembly.answer``."""
        answer = {"model": self.model, **self._response, "usage": self.raw_usage}
        if self._error is not None:
            answer = {"error": self._error} | {k: v for k, v in answer.items() if v is not None}
        answer["output"] = answer.get("output") or [
            self._whole(index, item) for index, item in sorted(self._items.items())
        ]
        return answer

    def _usage(self) -> Usage:
        return responses_usage(self.raw_usage)

    def _take(self, response: dict[str, Any], *, last: bool) -> None:
        self.begun = True
        self.model = response.get("model") or self.model
        with contextlib.suppress(*PROTOCOL_ERRORS):  # a usage that cannot be read counts as missing
            responses_usage(response["usage"])
            self.raw_usage, self.final = response["usage"], last
        if last:
            self._response, self.complete = response, True

    def _start_item(self, index: int, item: dict[str, Any]) -> None:
        self._items[index] = item
        if item.get("type") == "function_call":
            self._count_call(text_of(item.get("name")))
        elif item.get("type") not in _SHOWN:
            # The stream shows a summary of the reasoning or nothing, so its length is unknown.
            self._hidden = True

    def _add_delta(self, event: Mapping[str, Any], name: str) -> str:
        piece = text_of(event.get("delta"))
        self._count(piece)
        if name:
            self._pieces.setdefault((_index(event), name), []).append(piece)
        return piece if name == "text" else ""

    def _whole(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item with its text; an item that was not reported as done has only pieces."""
        told = {
            name: "".join(self._pieces.get((index, name), ()))
            for name in ("text", "refusal", "arguments")
        }
        if item.get("type") == "function_call" and not item.get("arguments"):
            return item | {"arguments": told["arguments"]}
        if item.get("type") == "message" and not item.get("content"):
            parts = (("output_text", "text"), ("refusal", "refusal"))
            content = [{"type": kind, name: told[name]} for kind, name in parts if told[name]]
            return item | {"content": content}
        return item


def _index(event: Mapping[str, Any]) -> int:
    """Return the place of an event's item; servers with only one item may leave it out."""
    return event.get("output_index") or 0

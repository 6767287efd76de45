"""Builds a response of OpenAI's Responses API from the events of its stream."""

from collections.abc import Mapping
from typing import Any

from app.domain.usage import either
from app.llm.reports import Reports
from app.llm.responses_answer import SHOWN, hides
from app.llm.streams import Assembly
from app.llm.usage import Counts
from app.llm.wire import joined, name_of, text_of

# The tier of a response for which the account's settings choose the tier later.
_AUTO = "auto"
_STARTS = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
    | {"response.done"}  # as in OpenAI's Codex
)
# For each type of delta of generated text, the field of the item's last part that has the text.
_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "arguments",
    "response.reasoning_summary_text.delta": "",
    "response.reasoning_text.delta": "",
}
# For each event with a whole text, the field that has the text.
_DONE = {
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
    "response.function_call_arguments.done": "arguments",
}


class ResponsesAssembly(Assembly):
    """Builds a response from the events of its stream.

    The last event has the whole response with its usage. Some servers leave out the items from that
    event; then the items come from earlier events. Events of unknown types are skipped, because new
    types are added without a new version of the API.

    Args:
        body: Body of the request.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(hidden=hides(body))
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        # The pieces of each text, by the item's index, the name of the text, and its part's index.
        self._pieces: dict[tuple[int, str, int], list[str]] = {}
        self._error: Mapping[str, Any] | None = None
        self._reports = Reports()
        # The tier that the request asks for. The first events of a response have this tier, or
        # "auto"; only the last event has the tier at which the provider served the request.
        self._asked_tier = body.get("service_tier")
        self._service_tier: Any = None

    def add(self, event: Any) -> str:
        """See ``Assembly.add``."""
        kind = event.get("type")
        if kind in _STARTS or kind in _ENDS:
            self._take(dict(event.get("response") or {}), kind)
        elif kind == "error":
            # The response that failed may still follow, with its usage.
            inner = event.get("error")
            self._error, self.complete = inner if isinstance(inner, Mapping) else event, True
        elif kind == "response.output_item.added":
            if item := event.get("item"):
                self._start_item(_index(event), dict(item))
        elif kind == "response.output_item.done":
            if item := event.get("item"):
                self._items[_index(event)] = dict(item)
        elif kind in _DONE:
            name = _DONE[kind]
            self._pieces.setdefault(_text_place(event, name), [text_of(event.get(name))])
        elif kind in _DELTAS:
            return self._add_delta(event, _DELTAS[kind])
        return ""

    def answer(self) -> dict[str, Any]:
        """See ``Assembly.answer``."""
        told = {"model": self.model, "service_tier": self._service_tier, "usage": self.raw_usage}
        answer = self._response | told
        if self._error is not None:
            answer = {"error": self._error} | {k: v for k, v in answer.items() if v is not None}
        for index, name, _ in self._pieces:  # a server that leaves out the beginnings of items
            kind = "function_call" if name == "arguments" else "message"
            self._items.setdefault(index, {"type": kind})
        answer["output"] = answer.get("output") or [
            self._whole(index, item) for index, item in sorted(self._items.items())
        ]
        return answer

    def add_late(self, event: Any) -> None:
        """See ``Assembly.add_late``."""
        self._take(dict(event.get("response") or {}), "")

    def facts(self) -> Mapping[str, Any]:
        """See ``Assembly.facts``."""
        return {"service_tier": self._service_tier}

    def reports_failure(self, event: Mapping[str, Any]) -> bool:
        """See ``Assembly.reports_failure``; after an error, the failed response still comes."""
        return "type" not in event and super().reports_failure(event)

    def _counts(self) -> Counts:
        return self._reports.counts(produced=self.has_output)

    def _take(self, response: dict[str, Any], kind: str) -> None:
        self.begun = True
        self.model = either(self.model, name_of(response.get("model")))
        tier = response.get("service_tier")
        is_asked = not self.ended and self._service_tier in (self._asked_tier, _AUTO)
        if tier and is_asked:
            self._service_tier = tier
        self._service_tier = either(self._service_tier, tier)
        if isinstance(usage := response.get("usage"), Mapping):
            self._reports.add(usage)
            self.raw_usage = self._reports.raw
        if kind in _ENDS:
            status = kind.removeprefix("response.")
            if status not in ("completed", "done") and response.get("status") in (
                None,
                "completed",
            ):
                response["status"] = status
            self._response, self.complete, self.final = response, True, True
            self.ended = True

    def _start_item(self, index: int, item: dict[str, Any]) -> None:
        self._items[index] = item
        if item.get("type") == "function_call":
            self._count_call(text_of(item.get("name")))
        elif item.get("type") not in SHOWN:
            # The stream shows a summary of the reasoning or nothing, so the reasoning's length is
            # unknown.
            self._hidden = True

    def _add_delta(self, event: Mapping[str, Any], name: str) -> str:
        piece = text_of(event.get("delta"))
        self._count(piece)
        if name:
            self._pieces.setdefault(_text_place(event, name), []).append(piece)
        return self._shown(piece) if name == "text" else ""

    def _whole(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item with its text; an item that was not reported as done has only pieces."""
        told = {
            name: joined(
                piece
                for place in sorted(self._pieces)
                if place[:2] == (index, name)
                for piece in self._pieces[place]
            )
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
    """Return the place of an event's item; servers with only one item may leave out the place."""
    return event.get("output_index") or 0


def _text_place(event: Mapping[str, Any], name: str) -> tuple[int, str, int]:
    """Return the place of an event's text; servers send the pieces of several texts in turns."""
    return _index(event), name, event.get("content_index") or 0

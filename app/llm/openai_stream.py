"""Builds a chat completion from the chunks of its stream."""

import json
from collections.abc import Mapping
from typing import Any

from app.llm.errors import reports_failure
from app.llm.finish import worse
from app.llm.openai_answer import THOUGHT_END, THOUGHT_START, hides, is_thought, usage_in
from app.llm.streams import Assembly
from app.llm.usage import Counts, openai_counts
from app.llm.wire import content_text, error_in, grown, joined, write_json

# Texts that are not pieces: each chunk repeats them.
_REPEATED = frozenset({"role", "type", "id", "name", "format"})


class OpenAIAssembly(Assembly):
    """Builds a chat completion from the chunks of its stream.

    The answer is complete with the chunk that has a finish reason, or with [DONE] if usage came
    with the last chunk. A later chunk without choices has the usage. Some servers count while they
    generate, and send the usage in every chunk.

    Args:
        body: Body of the request.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(hidden=hides(body))
        # The pieces of each text of the message, by the text's name. The message's other parts are
        # in ``_parts``.
        self._texts: dict[str, list[str]] = {}
        self._parts: dict[str, Any] = {}
        self._calls: list[_Call] = []
        self._by_index: dict[Any, _Call] = {}
        self._finish_reason: Any = None
        self._native: Any = None
        self._error: Any = None
        self._service_tier: Any = None
        # Whether the last chunk had usage and no piece of the answer; and this chunk's usage.
        self._counted_last = False
        self._last_usage: Mapping[str, Any] = {}
        # Whether the last piece of text was a thought in tags.
        self._in_thought = False

    def add(self, event: Any) -> str:
        """See ``Assembly.add``."""
        given = event.get("choices")
        choices = [choice for choice in given if choice] if isinstance(given, list) else []
        first = choices[0] if choices else {}
        counted = event.get("usage") or "x_groq" in event or first.get("usage")
        usage = usage_in(event, first) if counted else {}
        if reports_failure(event) and not choices and not usage:
            return ""
        self.begun = True
        if usage:
            self.raw_usage = grown(self.raw_usage, usage)
        self._counted_last, self._last_usage = bool(usage), usage
        self.model = event.get("model") or self.model
        self._service_tier = event.get("service_tier") or self._service_tier
        text = ""
        for choice in choices:
            if choice.get("index") in (None, 0, "0"):
                had = self._output_tokens
                text += self._add_delta(self._delta_of(choice))
                # A count beside a piece of the answer is a running count.
                self._counted_last = self._counted_last and self._output_tokens == had
                self._finish_reason = worse(self._finish_reason, choice.get("finish_reason"))
                self._native = choice.get("native_finish_reason") or self._native
                self._error = error_in(choice.get("error")) or self._error
        self.complete = self._finish_reason is not None
        self.final = self.final or (self.complete and self._counts_output(usage))
        return text

    def _counts_output(self, usage: Mapping[str, Any]) -> bool:
        return bool(usage) and openai_counts(usage, produced=self.has_output).output

    def _delta_of(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a piece of the answer; some servers send the whole message in one chunk."""
        if "delta" in choice:
            return choice["delta"] or {}
        return {} if self.has_output else choice.get("message") or {}

    def end(self) -> None:
        """See ``Assembly.end``."""
        if self._counted_last:
            self.complete = True
            self.final = self.final or self._counts_output(self._last_usage)

    def answer(self) -> dict[str, Any]:
        """See ``Assembly.answer``."""
        message = {**self._parts, **{name: joined(self._texts[name]) for name in self._texts}}
        if "content" in self._parts and "content" in self._texts:
            text = {"type": "text", "text": message["content"]}
            message["content"] = [*self._parts["content"], text]
        if self._calls:
            message["tool_calls"] = [call.whole() for call in self._calls]
        return {
            "model": self.model,
            "choices": [
                {
                    "message": message,
                    "finish_reason": self._finish_reason,
                    "native_finish_reason": self._native,
                    "error": self._error,
                }
            ],
            "usage": self.raw_usage,
            "service_tier": self._service_tier,
        }

    def facts(self) -> Mapping[str, Any]:
        """See ``Assembly.facts``."""
        return {"service_tier": self._service_tier}

    def _counts(self) -> Counts:
        return openai_counts(self.raw_usage, produced=self.has_output)

    def _add_delta(self, delta: Mapping[str, Any]) -> str:
        for name, piece in delta.items():
            if name == "role":
                continue
            if name == "tool_calls":
                for part in [piece] if isinstance(piece, Mapping) else piece or ():
                    self._add_call(part)
            elif isinstance(piece, str):
                # The model generated every text, also reasoning in a field of any name.
                self._texts.setdefault(name, []).append(piece)
                self._count(piece)
            elif piece:
                self._parts[name] = _continued(self._parts.get(name), piece)
                self._count(write_json(piece))
        return self._shown(self._without_thought(delta))

    def _without_thought(self, delta: Mapping[str, Any]) -> str:
        text = content_text(delta.get("content"))
        if is_thought(delta) and (self._in_thought or text.lstrip().startswith(THOUGHT_START)):
            self._in_thought = True
            return text.partition(THOUGHT_END)[2]
        if self._in_thought and text:
            self._in_thought = False
            return text.partition(THOUGHT_END)[2] if THOUGHT_END in text else text
        return text

    def _add_call(self, part: Mapping[str, Any]) -> None:
        call = self._call_of(part)
        function = part.get("function") or {}
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = write_json(arguments)
        if (name := function.get("name")) and not call.name:
            call.name = name
            self._count_call(name)
        if arguments:
            call.arguments.append(arguments)
            self._count(arguments)
        for key, value in part.items():
            if key not in ("index", "function") and value not in (None, ""):
                call.rest[key] = _next(key, call.rest.get(key), value)

    def _call_of(self, part: Mapping[str, Any]) -> "_Call":
        """Return the call that a part belongs to; servers number their calls in many ways.

        A part belongs to the call that has the part's id. Otherwise the part begins a new call if
        its index is new, or if it has another id than the last call at its index. A part with a
        name but without an id also begins a new call if the last call at its index is whole.
        """
        index, id_ = part.get("index"), part.get("id")
        if id_:
            for known_call in self._calls:
                if known_call.rest.get("id") == id_:
                    self._by_index[index] = known_call
                    return known_call
        call = self._by_index.get(index)
        if call is None and index is None and not id_ and self._calls:
            call = self._calls[-1]
        if call is not None:
            known = call.rest.get("id")
            function = part.get("function") or {}
            again = not id_ and function.get("name") and function.get("arguments") and call.is_whole
            if not again and not (id_ and known and id_ != known):
                return call
        call = self._by_index[index] = _Call()
        self._calls.append(call)
        return call


class _Call:
    """A tool call of which some parts have arrived."""

    def __init__(self) -> None:
        self.name = ""
        self.arguments: list[str] = []
        self.rest: dict[str, Any] = {}

    @property
    def is_whole(self) -> bool:
        """Whether the arguments so far are a whole JSON object."""
        try:
            return isinstance(json.loads("".join(self.arguments)), dict)
        except ValueError:
            return False

    def whole(self) -> dict[str, Any]:
        """Return the call in the form of an answer that is not streamed."""
        pieces = self.arguments
        if len(pieces) > 1 and pieces[0].strip() == "{}":
            pieces = pieces[1:]  # some servers send empty arguments before the real ones
        return {**self.rest, "function": {"name": self.name, "arguments": joined(pieces)}}


def _continued(old: Any, new: Any) -> Any:
    """Join a part of a message with its next piece.

    Texts are joined, and objects are merged. Two elements of lists become one element if they have
    the same index, or if they have the same type and stand one after the other.
    """
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, str) and isinstance(new, str):
        return joined([old, new])
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: _next(key, old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        elements = list(old)
        for element in new:
            if elements and _is_same(elements[-1], element):
                elements[-1] = _continued(elements[-1], element)
            else:
                elements.append(element)
        return elements
    return new


def _next(key: str, old: Any, new: Any) -> Any:
    return (old or new) if key in _REPEATED else _continued(old, new)


def _is_same(old: Any, new: Any) -> bool:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return False
    return (old.get("index"), old.get("type")) == (new.get("index"), new.get("type"))

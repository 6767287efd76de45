"""Builds a chat completion from the chunks of its stream."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from app.llm.errors import reports_failure
from app.llm.filters import blocked_answer, blocked_prompt, verdicts_in
from app.llm.finish import worse
from app.llm.openai_answer import (
    THOUGHT_END,
    THOUGHT_START,
    USAGES,
    hides,
    is_thought,
    usage_in,
)
from app.llm.streams import Assembly
from app.llm.usage import Counts, openai_counts
from app.llm.wire import content_text, error_in, grown, joined, write_json

# Texts that are not pieces: each chunk repeats them.
_REPEATED = frozenset({"role", "type", "id", "index", "name", "format"})
# The fields that tell the elements of a list apart.
_NAMING = ("type", "index", "id")
_TEXT_TYPE = re.compile("text|think|reason|summary")


class OpenAIAssembly(Assembly):
    """Builds a chat completion from the chunks of its stream.

    The answer is complete with the chunk that has a finish reason, with usage in a chunk without
    choices, or with [DONE] if usage came with the last chunk. A later chunk without choices has the
    usage. Some servers count while they generate, and send the usage in every chunk.

    Args:
        body: Body of the request.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(hidden=hides(body))
        # The pieces of each text of the message by the text's name, and the other parts.
        self._texts: dict[str, list[str]] = {}
        self._parts: dict[str, Any] = {}
        self._calls: list[_Call] = []
        self._by_index: dict[Any, _Call] = {}
        # The index of the only choice, which is not 0 with every server.
        self._index: Any = None
        self._finish_reason: Any = None
        self._native: Any = None
        self._error: Any = None
        self._service_tier: Any = None
        # What filters have said: of the prompt, and the last choice that they have blocked.
        self._verdicts: dict[str, Any] = {}
        self._blocked: dict[str, Any] = {}
        # Whether the last chunk had usage and no piece of the answer, and this usage.
        self._counted_last = False
        self._last_usage: Mapping[str, Any] = {}
        # Whether the last piece of text was a thought in tags.
        self._in_thought = False

    def add(self, event: Any) -> str:
        """See ``Assembly.add``."""
        given = event.get("choices")
        choices = [choice for choice in given if choice] if isinstance(given, list) else []
        first = choices[0] if choices else {}
        counted = any(map(event.get, USAGES)) or "x_groq" in event or first.get("usage")
        usage = usage_in(event, first) if counted else {}
        if reports_failure(event) and not choices and not usage:
            return ""
        self.begun = True
        if usage:
            self.raw_usage = grown(self.raw_usage, usage)
        self._counted_last, self._last_usage = bool(usage), usage
        self.model = event.get("model") or self.model
        self._service_tier = event.get("service_tier") or self._service_tier
        self._verdicts |= verdicts_in(event)
        text = ""
        for choice in choices:
            if self._is_own(choice.get("index")):
                had = self._output_tokens
                text += self._add_delta(self._delta_of(choice))
                # A count beside a piece of the answer is a running count.
                self._counted_last = self._counted_last and self._output_tokens == had
                self._finish_reason = worse(self._finish_reason, choice.get("finish_reason"))
                self._native = choice.get("native_finish_reason") or self._native
                self._error = error_in(choice.get("error")) or self._error
                if blocked_answer(choice):
                    self._blocked = choice
        # A filter may end an answer without a word for its end.
        ended = bool(self._blocked) or self._has_no_output
        # Usage without a choice comes after the last choice, also where no word for the end came.
        ended = ended or (self.has_output and not choices and self._counts_output(usage))
        self.complete = self._finish_reason is not None or ended
        self.ended = self.complete and bool(usage) and not choices
        self.final = self.final or (self.complete and self._counts_output(usage))
        return text

    def _is_own(self, index: Any) -> bool:
        """Return whether a choice is the one that was asked for, which is the first one."""
        if self._index is None:
            self._index = index
        return index is None or str(index) == str(self._index)

    @property
    def _has_no_output(self) -> bool:
        """Whether a filter has blocked the prompt, so that the model generates nothing."""
        return not self.has_output and blocked_prompt(self._verdicts) is not None

    def _counts_output(self, usage: Mapping[str, Any]) -> bool:
        counted = bool(usage) and openai_counts(usage, produced=self.has_output).output
        return counted or self._has_no_output

    def _delta_of(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a piece of the answer; some servers send the whole message in one chunk."""
        if "delta" in choice:
            return choice["delta"] or {}
        if text := choice.get("text"):  # the form before chat completions
            return {"content": text}
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
            **self._verdicts,
            "choices": [
                {
                    **self._blocked,
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
        counts = openai_counts(self.raw_usage, produced=self.has_output)
        return counts.without_output() if self._has_no_output else counts

    def _add_delta(self, delta: Mapping[str, Any]) -> str:
        for name, piece in delta.items():
            if name == "role":
                continue
            if name == "content" and isinstance(piece, int | float):
                piece = content_text(piece)  # noqa: PLW2901 a number of a JSON answer
            if name == "tool_calls":
                for part in [piece] if isinstance(piece, Mapping) else piece or ():
                    if part:
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
        if name := function.get("name"):
            self._count_call(call.add_name(name))
        if arguments:
            call.arguments.append(arguments)
            self._count(arguments)
        for key, value in part.items():
            if key not in ("index", "function") and value not in (None, ""):
                call.rest[key] = _next(key, call.rest.get(key), value)

    def _call_of(self, part: Mapping[str, Any]) -> "_Call":
        """Return the call that a part belongs to; servers number their calls in many ways.

        A part belongs to the call with its id. Otherwise a part with a name begins a new call if
        its index is new, if it has another id than the call before it at this index, or, without
        ids, if that call is whole. A part without a name begins a call only at a new index, because
        some servers give each part another id.
        """
        index, id_ = _index_of(part), part.get("id")
        if id_:
            for known_call in self._calls:
                if known_call.rest.get("id") == id_:
                    self._by_index[index] = known_call
                    return known_call
        function = part.get("function") or {}
        name, call = function.get("name"), self._by_index.get(index)
        if call is None and self._calls and not name and (index is None or not id_):
            call = self._calls[-1]
        if call is not None:
            known = call.rest.get("id")
            again = not id_ and name and function.get("arguments") and call.is_whole
            if not again and not (id_ and known and id_ != known and name):
                return call
        call = self._by_index[index] = _Call()
        self._calls.append(call)
        return call


class _Call:
    """A tool call, of which parts have arrived."""

    def __init__(self) -> None:
        self.name = ""
        self.arguments: list[str] = []
        self.rest: dict[str, Any] = {}

    @property
    def is_whole(self) -> bool:
        """Whether the arguments so far are a whole JSON object."""
        return _object("".join(self.arguments)) is not None

    def add_name(self, name: str) -> str:
        """Add a piece of the name; return what is new. Some servers repeat the name in each part.

        The name is whole when the arguments begin.
        """
        if self.arguments or name == self.name:
            return ""
        new = name.removeprefix(self.name)  # some servers repeat what they have sent so far
        self.name += new
        return new

    def whole(self) -> dict[str, Any]:
        """Return the call in the form of an answer that is not streamed."""
        return {**self.rest, "function": {"name": self.name, "arguments": self._arguments()}}

    def _arguments(self) -> str:
        """Return the arguments, which some servers send again, as a whole or with each piece."""
        pieces = self.arguments
        if len(pieces) > 1 and pieces[0].strip() == "{}":
            pieces = pieces[1:]  # some servers send empty arguments before the real ones
        if len(pieces) < 2 or self.is_whole or _object(pieces[-1]) is None:  # noqa: PLR2004
            return joined(pieces)
        *before, last = pieces
        grows = all(later.startswith(piece) for piece, later in pairwise(pieces))
        repeats = _object(joined(before)) == _object(last)
        return joined([last]) if grows or repeats else joined(pieces)


def _object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, or None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _index_of(part: Mapping[str, Any]) -> Any:
    """Return the index of a part of a call; some servers write it as a text."""
    index = part.get("index")
    return int(index) if isinstance(index, str) and index.isdecimal() else index


def _continued(old: Any, new: Any) -> Any:
    """Join a part of a message with its next piece.

    Texts are joined, objects are merged, and an element of a list continues an earlier element with
    its index or id, or, if it has neither, the element just before it.
    """
    if isinstance(new, list):
        old = [] if old is None else old
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, str) and isinstance(new, str):
        return joined([old, new])
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: _next(key, old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        elements = list(old)
        for position, element in enumerate(new):
            place = _place_of(element, elements, is_first=position == 0)
            if place is None:
                elements.append(element)
            else:
                elements[place] = _continued(elements[place], element)
        return elements
    return new


def _next(key: str, old: Any, new: Any) -> Any:
    if key == "signature" and new:  # it signs the whole text, so the last one holds
        return new
    if key in _REPEATED:
        return new if old in (None, "") else old
    return _continued(old, new)


def _place_of(element: Any, elements: list[Any], *, is_first: bool) -> int | None:
    """Return the place of the element that an element of a chunk continues, or None.

    Servers send the pieces of several elements in turns, so the index and the id decide.

    Args:
        element: The element.
        elements: The elements so far.
        is_first: Whether the element is the first one of its chunk.
    """
    if not isinstance(element, Mapping):
        return None
    places = list(range(len(elements)))
    if element.get("index") is None and not element.get("id"):
        # Only a text can go on without a name; two images are two images.
        is_text = _TEXT_TYPE.search(str(element.get("type"))) is not None
        places = places[-1:] if is_first and is_text else []
    return next((place for place in reversed(places) if _is_same(elements[place], element)), None)


def _is_same(old: Any, new: Mapping[str, Any]) -> bool:
    """Return whether nothing tells two elements apart."""
    return isinstance(old, Mapping) and all(
        old.get(name) in (None, "") or new.get(name) in (None, "", old[name]) for name in _NAMING
    )

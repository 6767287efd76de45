"""Builds a chat completion from the chunks of its stream."""

from collections.abc import Mapping
from typing import Any

from app.domain.usage import either
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
from app.llm.openai_pieces import Call, continued, index_of, next_part
from app.llm.reports import Reports
from app.llm.streams import Assembly
from app.llm.usage import Counts, openai_counts
from app.llm.wire import content_text, error_in, joined, list_in, name_of, write_json


class OpenAIAssembly(Assembly):
    """Builds a chat completion from the chunks of its stream.

    The answer is complete with the chunk that has a finish reason. Without one, it is complete at
    the end of the stream if the last chunk had usage and no choice, or usage before [DONE]. A later
    chunk without choices has the usage. Some servers count while they generate, and send the usage
    in every chunk.

    Args:
        body: Body of the request.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(hidden=hides(body))
        # The pieces of each text of the message, by the text's name. The message's other parts are
        # in ``_parts``.
        self._texts: dict[str, list[str]] = {}
        self._parts: dict[str, Any] = {}
        self._calls: list[Call] = []
        self._by_index: dict[Any, Call] = {}
        # The index of the only choice, which is not 0 with every server.
        self._index: Any = None
        self._finish_reason: Any = None
        self._native: Any = None
        self._error: Any = None
        self._service_tier: Any = None
        self._reports = Reports()
        # The words of filters about the prompt, and the last choice that filters have blocked.
        self._verdicts: dict[str, Any] = {}
        self._blocked: dict[str, Any] = {}
        # Whether the last chunk had usage and no piece of the answer; and this chunk's usage.
        self._counted_last = False
        # Whether the last chunk had usage and no choice, as only the last chunks have.
        self._counted_alone = False
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
            self._reports.add(usage)
            self.raw_usage = self._reports.raw
        self._counted_last, self._last_usage = bool(usage), usage
        self.model = either(self.model, name_of(event.get("model")))
        self._service_tier = either(self._service_tier, event.get("service_tier"))
        if not self.has_output:
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
        self._counted_alone = bool(usage) and not choices
        self.complete = self._finish_reason is not None
        self.ended = self.complete and self._counted_alone
        self.final = self.final or (self.complete and self._counts_output(usage))
        return text

    def add_late(self, event: Any) -> None:
        """See ``Assembly.add_late``."""
        choices = list_in(event.get("choices"))
        usage = usage_in(event, choices[0] if choices else None)
        if usage:
            self.add({**event, "choices": [], "usage": usage})

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
        return bool(usage) and openai_counts(usage, produced=self.has_output).output

    def _delta_of(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a piece of the answer; some servers send the whole message in one chunk."""
        if "delta" in choice:
            return choice["delta"] or {}
        if text := choice.get("text"):  # the form before chat completions
            return {"content": text}
        return {} if self.has_output else choice.get("message") or {}

    def end(self, *, said: bool) -> None:
        """See ``Assembly.end``; some servers, and some filters, give no word for the end."""
        counted = self._counted_last if said else self._counted_alone and self.has_output
        if counted:
            self.complete = True
            self.final = self.final or self._counts_output(self._last_usage)
        if self._blocked or self._has_no_output:
            self.complete = True
            self.final = self.final or self._has_no_output

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
        counts = self._reports.counts(produced=self.has_output)
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
                self._parts[name] = continued(self._parts.get(name), piece)
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
                call.rest[key] = next_part(key, call.rest.get(key), value)

    def _call_of(self, part: Mapping[str, Any]) -> Call:
        """Return the call that a part belongs to; servers number their calls in many ways.

        A part belongs to the call that has the part's id. Otherwise a part with a name begins a new
        call if its index is new, or if it has another id than the last call at its index. A part
        with a name but without an id also begins a new call if the last call at its index is whole.
        A part without a name begins a new call only at a new index, because some servers give each
        part another id.
        """
        index, id_ = index_of(part), part.get("id")
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
        call = self._by_index[index] = Call()
        self._calls.append(call)
        return call

"""Builds a chat completion from the chunks of its stream."""

from collections.abc import Mapping
from typing import Any

from app.domain.usage import Usage
from app.llm.models import openai_samples
from app.llm.streams import Assembly, text_of
from app.llm.usage import openai_usage

# Parameters that ask the models of compatible servers to reason.
_REASONING = ("reasoning", "thinking")


class OpenAIAssembly(Assembly):
    """Builds a chat completion from the chunks of its stream.

    The answer is complete with the chunk that has a finish reason. A later chunk without choices
    has the usage. Some servers count while they generate, and send the usage in every chunk.

    Args:
        body: Body of the request.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(hidden=_reasons(body))
        self._texts: dict[str, list[str]] = {"content": [], "refusal": []}
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None
        self._service_tier: str | None = None

    def add(self, event: Any) -> str:
        """See ``Assembly.add``."""
        choices = event.get("choices") or ()
        self.begun = True
        self.model = event.get("model") or self.model
        self._service_tier = event.get("service_tier") or self._service_tier
        text = ""
        for choice in choices:
            if not choice.get("index"):
                text += self._add_delta(choice.get("delta") or {})
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self.complete = self._finish_reason is not None
        if usage := event.get("usage"):
            openai_usage(usage)
            self.raw_usage, self.final = usage, self.complete
        return text

    def answer(self) -> dict[str, Any]:
        """See ``Assembly.answer``."""
        message: dict[str, Any] = {
            name: "".join(pieces) or None for name, pieces in self._texts.items()
        }
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
                }
                for _, call in sorted(self._calls.items())
            ]
        return {
            "model": self.model,
            "choices": [{"message": message, "finish_reason": self._finish_reason}],
            "usage": self.raw_usage,
            "service_tier": self._service_tier,
        }

    def facts(self) -> Mapping[str, Any]:
        """See ``Assembly.facts``."""
        return {"service_tier": self._service_tier}

    def _usage(self) -> Usage:
        return openai_usage(self.raw_usage)

    def _add_delta(self, delta: Mapping[str, Any]) -> str:
        for name, piece in delta.items():
            # The model generated every text of the stream, also reasoning in a field of any name.
            if isinstance(piece, str) and name != "role":
                self._count(piece)
        for name, pieces in self._texts.items():
            if piece := text_of(delta.get(name)):
                pieces.append(piece)
        for part in delta.get("tool_calls") or ():
            self._add_call(part)
        return text_of(delta.get("content"))

    def _add_call(self, part: Mapping[str, Any]) -> None:
        index, id_ = part.get("index"), text_of(part.get("id"))
        if index is None:
            # If a server does not number its calls, each new id begins a new call.
            index = len(self._calls) if id_ or not self._calls else max(self._calls)
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": []})
        function = part.get("function") or {}
        call["id"] = call["id"] or id_
        if (name := text_of(function.get("name"))) and not call["name"]:
            call["name"] = name
            self._count_call(name)
        arguments = text_of(function.get("arguments"))
        call["arguments"].append(arguments)
        self._count(arguments)


def _reasons(body: Mapping[str, Any]) -> bool:
    effort = body.get("reasoning_effort")
    asked = effort not in (None, "none") or any(name in body for name in _REASONING)
    return asked or not openai_samples(body["model"], effort)

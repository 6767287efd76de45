"""Builds a message of Anthropic's API from the events of its stream."""

from collections.abc import Mapping
from typing import Any

import orjson

from app.domain.usage import Usage
from app.llm.models import anthropic_thinks_unasked
from app.llm.streams import Assembly, text_of
from app.llm.usage import anthropic_usage

_SHOWN = frozenset({"text", "tool_use"})
# For each type of delta that adds text to a block: the name of the field that has the text.
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class AnthropicAssembly(Assembly):
    """Builds a message from the events of its stream.

    ``message_start`` has the usage of the prompt, and ``message_delta`` has the usage of the
    output. Both have totals, so a later number replaces an earlier one. Events of unknown types are
    skipped, because the provider's versioning policy requires that.

    Args:
        body: Body of the request.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        thinking = body.get("thinking")
        asked = thinking is not None and thinking.get("type") != "disabled"
        super().__init__(hidden=asked)
        self._thinks_unasked = thinking is None and anthropic_thinks_unasked(body["model"])
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        # The pieces of text of each block that has begun and has not ended, by the block's index.
        self._pieces: dict[int, list[str]] = {}

    def add(self, event: Any) -> str:
        """See ``Assembly.add``."""
        match event["type"]:
            case "message_start":
                self._message = dict(event["message"])
                self.begun = True
                self.model = self._message["model"]
                self._add_usage(self._message.get("usage"))
            case "content_block_start":
                return self._start_block(event["index"], dict(event["content_block"]))
            case "content_block_delta":
                return self._add_delta(event["index"], event["delta"])
            case "content_block_stop":
                self._finish_block(event["index"])
            case "message_delta":
                self._message |= event["delta"]
                self._add_usage(event.get("usage"))
                self.final = bool(event.get("usage") and self._message.get("stop_reason"))
            case "message_stop":
                self.complete = True
        return ""

    def answer(self) -> dict[str, Any]:
        """See ``Assembly.answer``."""
        for index in list(self._pieces):
            self._finish_block(index)
        content = [block for _, block in sorted(self._blocks.items())]
        return self._message | {"content": content, "usage": self.raw_usage}

    def _usage(self) -> Usage:
        return anthropic_usage(self.raw_usage)

    def _hides(self) -> bool:
        # Thinking comes in blocks of its own, before and between the other blocks. The first
        # event of a block that is not shown sometimes does not come until the block has ended.
        return self._hidden or (self._thinks_unasked and not self._pieces)

    def _add_usage(self, usage: Mapping[str, Any] | None) -> None:
        reported = {name: value for name, value in (usage or {}).items() if value is not None}
        if reported:
            anthropic_usage(self.raw_usage | reported)
            self.raw_usage = self.raw_usage | reported

    def _start_block(self, index: int, block: dict[str, Any]) -> str:
        self._blocks[index], self._pieces[index] = block, []
        if block["type"] not in _SHOWN:
            # The model shows a summary of its reasoning or nothing, so the real length is unknown.
            self._hidden = True
        if block["type"] == "tool_use":
            self._count_call(text_of(block["name"]))
        text = text_of(block["text"]) if block["type"] == "text" else ""
        self._count(text)
        return text

    def _add_delta(self, index: int, delta: Mapping[str, Any]) -> str:
        block, kind = self._blocks[index], delta["type"]
        if name := _TEXTS.get(kind):
            piece = text_of(delta[name])
            self._pieces[index].append(piece)
            self._count(piece)
            return piece if kind == "text_delta" else ""
        if kind == "signature_delta":
            block["signature"] = delta["signature"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        return ""

    def _finish_block(self, index: int) -> None:
        block, pieces = self._blocks[index], "".join(self._pieces.pop(index, ()))
        if not pieces:
            return
        if block["type"] in ("text", "thinking"):
            block[block["type"]] = text_of(block.get(block["type"])) + pieces
        else:
            block["input"] = tool_input(pieces)


def tool_input(arguments: str) -> dict[str, Any]:
    """Convert a call's arguments to an object, because the API requires an object in any case."""
    try:
        value = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}

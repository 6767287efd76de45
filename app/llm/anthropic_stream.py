"""Builds a message of Anthropic's API from the events of its stream."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.domain.usage import SERVED, either
from app.llm.anthropic_answer import SHOWN, tool_input
from app.llm.finish import worse
from app.llm.models import anthropic_thinks_unasked
from app.llm.reports import largest
from app.llm.streams import Assembly
from app.llm.usage import Counts, anthropic_counts, left_out_of
from app.llm.wire import grown, joined, name_of, text_of

# For each type of delta that adds text to a block, the name of the field that has the text.
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class AnthropicAssembly(Assembly):
    """Builds a message from the events of its stream.

    ``message_start`` has the usage of the prompt, and ``message_delta`` has the usage of the
    output. Both usages have totals, and the totals never shrink. Events of unknown types are
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
        # The blocks in the order of their beginnings; some servers use an index again.
        self._blocks: list[dict[str, Any]] = []
        self._places: dict[Any, int] = {}
        # By place of a block: the text pieces of each block that has begun and has not ended.
        self._pieces: dict[int, list[str]] = {}
        # The largest counts so far.
        self._least = Counts()

    def add(self, event: Any) -> str:
        """See ``Assembly.add``."""
        match event.get("type"):
            case "message_start":
                self._message = dict(event.get("message") or {})
                self._blocks, self._places, self._pieces = (
                    [],
                    {},
                    {},
                )  # this event may be a second beginning
                self.begun = True
                self.model = either(self.model, name_of(self._message.get("model")))
                self._add_usage(self._message.get("usage"))
            case "content_block_start":
                return self._start_block(event.get("index"), dict(event["content_block"]))
            case "content_block_delta":
                return self._add_delta(event.get("index"), event["delta"])
            case "content_block_stop":
                self._finish_block(self._places.get(event.get("index")))
            case "message_delta":
                word = self._message.get("stop_reason")
                self._message |= event.get("delta") or {}
                self._message["stop_reason"] = worse(word, self._message.get("stop_reason"))
                # Some servers end the stream here, without the event for its end.
                self.complete = bool(self._message["stop_reason"])
                self._add_usage(event.get("usage"))
                counts = anthropic_counts(event.get("usage"), produced=self.has_output)
                self.final = self.final or bool(counts.output and self._message["stop_reason"])
            case "message_stop":
                self.complete = self.ended = bool(self._message.get("stop_reason"))
        return ""

    def answer(self) -> dict[str, Any]:
        """See ``Assembly.answer``."""
        for place in list(self._pieces):
            self._finish_block(place)
        told = {"model": self.model, "content": self._blocks, "usage": self.raw_usage}
        return self._message | told

    def add_late(self, event: Any) -> None:
        """See ``Assembly.add_late``."""
        self._add_usage(event.get("usage"))

    def _counts(self) -> Counts:
        counts, least = anthropic_counts(self.raw_usage, produced=self.has_output), self._least
        usage = largest(counts.usage, least.usage)
        return replace(counts, usage=usage, prompt=counts.prompt or least.prompt)

    def _hides(self) -> bool:
        # Thinking comes in blocks of its own, before and between the other blocks. If a block is
        # not shown, its first event sometimes does not come until the block has ended.
        return self._hidden or (self._thinks_unasked and not self._pieces)

    def _add_usage(self, usage: Any) -> None:
        if not isinstance(usage, Mapping):
            return
        if left_out_of(usage):
            # The start may count some tokens that the end counts for an iteration. So the tokens
            # are not added up: the larger of the two counts decides.
            served = {name: either(self.raw_usage.get(name), usage.get(name)) for name in SERVED}
            told = {name: value for name, value in {**usage, **served}.items() if value is not None}
            self.raw_usage = {**self.raw_usage, **told}
        else:
            self.raw_usage = grown(self.raw_usage, usage)
        counts, alone = self._counts(), anthropic_counts(usage, produced=False)
        usage = largest(counts.usage, alone.usage)
        self._least = replace(counts, usage=usage, prompt=counts.prompt or alone.prompt)

    def _start_block(self, index: Any, block: dict[str, Any]) -> str:
        self.begun = True
        place = self._places[index] = len(self._blocks)
        self._blocks.append(block)
        self._pieces[place] = []
        if block.get("type") not in SHOWN:
            # The model shows a summary of its reasoning or nothing, so the real length is unknown.
            self._hidden = True
        if block.get("type") == "tool_use":
            self._count_call(text_of(block["name"]))
        text = text_of(block.get("text")) if block.get("type") == "text" else ""
        self._count(text)
        return self._shown(text)

    def _add_delta(self, index: Any, delta: Mapping[str, Any]) -> str:
        kind = delta.get("type")
        if index not in self._places:  # some servers leave out the starts of blocks
            shown = "thinking" if kind == "thinking_delta" else "text"
            self._start_block(index, {"type": shown, shown: ""})
        place = self._places[index]
        block = self._blocks[place]
        if name := _TEXTS.get(str(kind)):
            piece = text_of(delta.get(name))
            self._pieces.setdefault(place, []).append(piece)
            self._count(piece)
            return self._shown(piece) if kind == "text_delta" else ""
        if kind == "signature_delta":
            block["signature"] = delta.get("signature")
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
        return ""

    def _finish_block(self, place: int | None) -> None:
        pieces = joined(self._pieces.pop(place, ())) if place is not None else ""
        if not pieces or place is None:
            return
        block = self._blocks[place]
        if block.get("type") in ("text", "thinking"):
            block[block["type"]] = joined([text_of(block.get(block["type"])), pieces])
        else:
            block["input"] = tool_input(pieces)

"""Anthropic's messages: request bodies, answers, streams, errors and rate-limit headers."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.simulator.anthropic_tools import (
    blocks_of,
    citations_of,
    has_free_containers,
    past_tokens,
    server_tool,
)
from app.simulator.chat import (
    Answer,
    ChatRequest,
    Refusal,
    Tool,
    ToolCall,
    Transcript,
    Usage,
    count_tokens,
)
from app.simulator.error_bodies import anthropic_error
from app.simulator.ledger import Record
from app.simulator.limits import Charge, Excess, MeterState
from app.simulator.media import anthropic_media
from app.simulator.wire import (
    Event,
    as_object,
    bearer_in,
    compact,
    field,
    object_in,
    objects_in,
    pieces,
    refuse_others,
    text_of,
    token_limit,
)

_COUNTED = frozenset(
    {"cache_control", "messages", "model", "output_config", "speed", "system", "thinking"}
    | {"tool_choice", "tools"}
)
_CONTAINER_S = 300


class AnthropicWire:
    """See `Wire`."""

    provider = "anthropic"
    request_id_header = "request-id"

    def key_in(self, headers: Mapping[str, str]) -> str:
        """See `Wire`."""
        return headers.get("x-api-key", "").strip() or bearer_in(headers)

    def parse(self, body: Any) -> ChatRequest:
        """See `Wire`."""
        body = as_object(body)
        field(body, "messages", list)
        model = field(body, "model", str)
        transcript = Transcript()
        if body.get("system"):
            transcript.instruction(text_of(body["system"]))
        for message in objects_in(body, "messages"):
            _read_message(transcript, message)
            for media in anthropic_media(message.get("content"), model):
                transcript.file(media.sha256, media.tokens)
        transcript.close_calls()
        max_tokens = token_limit(body, "max_tokens")
        if max_tokens is None:
            raise Refusal(400, "max_tokens: Field required")
        tools = objects_in(body, "tools")
        format_ = object_in(object_in(body, "output_config"), "format")
        return ChatRequest(
            provider=self.provider,
            model=model,
            prompt="\n".join(transcript.prompts),
            questions=transcript.questions,
            said=transcript.said,
            files=tuple(transcript.files),
            question=transcript.question,
            input_tokens=transcript.input_tokens + (count_tokens(compact(tools)) if tools else 0),
            max_tokens=max_tokens,
            tools=tuple(_tool(tool) for tool in tools if server_tool(tool, model) is None),
            server_tools=tuple(filter(None, (server_tool(tool, model) for tool in tools))),
            server_turns=transcript.server_turns,
            containers=_containers(body),
            free_containers=has_free_containers(tools),
            tool_choice=_tool_choice(object_in(body, "tool_choice")),
            tool_results=tuple(transcript.results),
            tool_turns=transcript.tool_turns,
            wants_json=False,
            schema=format_.get("schema"),
            stream=bool(body.get("stream")),
            include_usage=True,
        )

    def parse_count(self, body: Any) -> ChatRequest:
        """See `CountingWire`."""
        body = as_object(body)
        refuse_others(body, _COUNTED, "{name}: Extra inputs are not permitted")
        return self.parse({**body, "max_tokens": 1})

    def count(self, input_tokens: int) -> bytes:
        """See `CountingWire`."""
        return compact({"input_tokens": input_tokens}).encode()

    def charge(self, answer: Answer) -> Charge:
        """Return the amounts: one request, the input without cache reads, and the real output.

        `max_tokens` does not count. The provider counts the output while it generates the output.
        The simulator knows the output beforehand and counts the output at the start, so the
        simulator never admits more than the provider.
        """
        usage = answer.usage
        counted = usage.input_tokens - usage.cached_tokens
        return Charge(
            tokens=counted + usage.output_tokens,
            input_tokens=counted,
            output_tokens=usage.output_tokens,
        )

    def over_limit(self, excess: Excess, model: str) -> Refusal:
        """See `Wire`."""
        text = (
            f"This request would exceed your organization's rate limit of {excess.limit:,} "
            f"{excess.meter.replace('_', ' ')} per minute (model: {model}). For details, refer to: "
            "https://docs.claude.com/en/api/rate-limits."
        )
        return Refusal(429, text, retry_after_s=excess.retry_after_s)

    def answer(self, answer: Answer) -> bytes:
        """See `Wire`."""
        body = _message(answer, _content(answer), _stop_reason(answer), answer.usage.output_tokens)
        return compact(body).encode("utf-8", "replace")

    def events(self, answer: Answer) -> list[Event]:
        """Make all events; message_delta, directly before the last event, has the usage."""
        started = _message(answer, [], None, 1) | {"usage": _first_usage(answer)}
        start = {"type": "message_start", "message": started}
        events = [Event(_sse(start), 1), Event(_sse({"type": "ping"}), 1)]
        tokens = answer.usage.reasoning_tokens
        for index, block in enumerate(_content(answer)):
            events.extend(_block_events(index, block, tokens))
            tokens = events[-1].output_tokens
        ending = {
            "type": "message_delta",
            "delta": {
                "stop_reason": _stop_reason(answer),
                "stop_sequence": None,
                "container": _container(answer),
            },
            "usage": _usage(answer.usage, answer.usage.output_tokens) | _tool_usage(answer),
        }
        total = answer.usage.output_tokens
        return [*events, Event(_sse(ending), total), Event(_sse({"type": "message_stop"}), total)]

    def error(self, refusal: Refusal, record: Record) -> bytes:
        """See `Wire`."""
        body = anthropic_error(refusal, record.model, record.request_id)
        return compact(body).encode("utf-8", "replace")

    def error_in_200(self, refusal: Refusal, record: Record) -> bytes:
        """See `Wire`; the body is the same as for the error's own status."""
        return self.error(refusal, record)

    def error_event(self, refusal: Refusal, record: Record) -> bytes:
        """See `Wire`."""
        return _sse(anthropic_error(refusal, record.model, record.request_id))

    def limit_headers(self, states: Sequence[MeterState]) -> dict[str, str]:
        """Make the headers `anthropic-ratelimit-*`.

        The remaining tokens are rounded to thousands. The headers of `tokens` show the tightest of
        the token limits.
        """
        shown = {state.name.replace("_", "-"): state for state in states}
        of_tokens = [state for state in states if state.name != "requests"]
        if of_tokens and "tokens" not in shown:
            shown["tokens"] = min(of_tokens, key=lambda state: state.remaining / state.limit)
        headers: dict[str, str] = {}
        for name, state in shown.items():
            remaining = state.remaining if name == "requests" else round(state.remaining, -3)
            headers |= {
                f"anthropic-ratelimit-{name}-limit": str(state.limit),
                f"anthropic-ratelimit-{name}-remaining": str(remaining),
                f"anthropic-ratelimit-{name}-reset": rfc3339_in(state.reset_s),
            }
        return headers

    def retry_headers(self, retry_after_s: float) -> dict[str, str]:
        """Make one header: the seconds, rounded up to a whole number."""
        return {"retry-after": str(math.ceil(retry_after_s))}


def rfc3339_in(seconds: float) -> str:
    """Return the UTC time after this many seconds from now, such as `2025-01-31T12:00:00Z`.

    The time is rounded up to a whole second.
    """
    moment = datetime.now(UTC) + timedelta(seconds=seconds, microseconds=999_999)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_message(transcript: Transcript, message: Mapping[str, Any]) -> None:
    role, content = message.get("role"), message.get("content")
    blocks = objects_in(message, "content") if isinstance(content, list) else []
    text = text_of(content)
    if role == "user":
        results = [block for block in blocks if block.get("type") == "tool_result"]
        for block in results:
            transcript.result(str(block.get("tool_use_id")), text_of(block.get("content")))
        if not results:
            transcript.user(text)
        elif text:
            transcript.instruction(text)
    elif role == "assistant":
        calls = [
            ToolCall(
                id=str(block.get("id")),
                name=str(block.get("name", "")),
                arguments=compact(block.get("input")),
            )
            for block in blocks
            if block.get("type") == "tool_use"
        ]
        transcript.assistant(text, calls, past_tokens(blocks))
    else:
        raise Refusal(400, f"messages: Unexpected role {role!r}. Use 'user' or 'assistant'.")


def _tool(tool: Mapping[str, Any]) -> Tool:
    return Tool(name=field(tool, "name", str), schema=object_in(tool, "input_schema"))


def _tool_choice(choice: Mapping[str, Any]) -> str:
    kind = str(choice.get("type", "auto"))
    return str(choice.get("name")) if kind == "tool" else {"any": "required"}.get(kind, kind)


def _content(answer: Answer) -> list[dict[str, Any]]:
    if answer.reply.refused:
        return []
    used = answer.reply.server_calls
    before = [block for call in used for block in blocks_of(call)]
    if answer.reply.paused:
        return before
    if not answer.reply.tool_calls:
        text: dict[str, Any] = {"type": "text", "text": answer.reply.text}
        if citations := citations_of(used):
            text["citations"] = citations
        return [*before, text]
    return before + [
        {
            "type": "tool_use",
            "id": f"toolu_{call.id}",
            "name": call.name,
            "input": _input(call),
        }
        for call in answer.reply.tool_calls
    ]


def _input(call: ToolCall) -> Any:
    """Return the arguments of a call; the provider sends cut arguments as an empty object."""
    try:
        return json.loads(call.arguments)
    except ValueError:
        return {}


def _message(
    answer: Answer, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int
) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.request.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "container": None if stop_reason is None else _container(answer),
        "usage": _usage(answer.usage, output_tokens) | _tool_usage(answer),
    }


def _containers(body: Mapping[str, Any]) -> tuple[str, ...]:
    return () if body.get("container") is None else (str(field(body, "container", str)),)


def _container(answer: Answer) -> dict[str, str] | None:
    if answer.container is None:
        return None
    return {"id": answer.container, "expires_at": rfc3339_in(_CONTAINER_S)}


def _first_usage(answer: Answer) -> dict[str, Any]:
    """Return the usage at the start of a stream, before any tool of the provider has run."""
    usage, whole = answer.usage, answer.request.input_tokens
    cached = min(usage.cached_tokens, whole)
    written = min(usage.cache_write_tokens, whole - cached)
    first = replace(usage, input_tokens=whole, cached_tokens=cached, cache_write_tokens=written)
    return _usage(first, min(1, usage.output_tokens))


def _tool_usage(answer: Answer) -> dict[str, Any]:
    if not answer.request.server_tools:
        return {}
    # The usage of real answers does not count programs.
    names = {name for name, _ in answer.request.server_tools} - {"code_execution"}
    names |= set() if names else {"web_search", "web_fetch"}
    counts = {f"{name}_requests": answer.reply.uses(name) for name in sorted(names)}
    return {"server_tool_use": counts}


def _usage(usage: Usage, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "global",
    }


def _stop_reason(answer: Answer) -> str:
    if answer.reply.refused:
        return "refusal"
    if answer.reply.paused:
        return "pause_turn"
    if answer.reply.cut:
        return "max_tokens"
    return "tool_use" if answer.reply.tool_calls else "end_turn"


def _block_events(index: int, block: Mapping[str, Any], tokens: int) -> Iterator[Event]:
    """Yield the events of one content block; `tokens` is the number of tokens before the block."""
    citations = block.get("citations", ())
    if "content" in block:  # the result of a provider's tool comes in one piece
        empty, text, kind, key = dict(block), "", "", ""
    elif block["type"] == "text":
        empty, text, kind, key = {"type": "text", "text": ""}, block["text"], "text_delta", "text"
    else:
        tokens += count_tokens(block["name"])
        empty, text = {**block, "input": {}}, compact(block["input"])
        kind, key = "input_json_delta", "partial_json"
    yield Event(
        _sse({"type": "content_block_start", "index": index, "content_block": empty}), tokens
    )
    head = f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
    for piece, sent in pieces(text):
        data = f'{head}"delta":{{"type":"{kind}","{key}":{compact(piece)}}}}}\n\n'
        yield Event(data.encode("utf-8", "replace"), tokens + sent)
    for citation in citations:
        delta = {"type": "citations_delta", "citation": citation}
        cited = {"type": "content_block_delta", "index": index, "delta": delta}
        yield Event(_sse(cited), tokens + count_tokens(text))
    end = {"type": "content_block_stop", "index": index}
    yield Event(_sse(end), tokens + count_tokens(text))


def _sse(data: Mapping[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {compact(data)}\n\n".encode("utf-8", "replace")

"""OpenAI's chat completions: request bodies, answers, streams, errors and rate-limit headers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
from app.simulator.error_bodies import openai_error
from app.simulator.ledger import Record
from app.simulator.limits import Charge, Excess, MeterState
from app.simulator.media import openai_media
from app.simulator.openai_rules import check_chat
from app.simulator.wire import (
    Event,
    as_object,
    bearer_in,
    compact,
    field,
    object_in,
    objects_in,
    pieces,
    text_of,
    token_limit,
)

_LIMITED = {
    "requests": "requests per min (RPM)",
    "tokens": "tokens per min (TPM)",
    "input_tokens": "input tokens per min",
    "output_tokens": "output tokens per min",
}


class OpenAIWire:
    """See `Wire`."""

    provider = "openai"
    request_id_header = "x-request-id"

    def key_in(self, headers: Mapping[str, str]) -> str:
        """See `Wire`."""
        return bearer_in(headers)

    def parse(self, body: Any) -> ChatRequest:
        """See `Wire`."""
        body = as_object(body)
        model = field(body, "model", str)
        check_chat(body, model)
        field(body, "messages", list)
        transcript = Transcript()
        for message in objects_in(body, "messages"):
            _read_message(transcript, message)
            for media in openai_media(message.get("content"), model):
                transcript.file(media.sha256, media.tokens)
        transcript.close_calls()
        if body.get("n") not in (None, 1):
            raise Refusal(400, "Invalid 'n': the simulator gives one choice.")
        tools = objects_in(body, "tools")
        format_ = object_in(body, "response_format")
        return ChatRequest(
            provider=self.provider,
            model=model,
            prompt="\n".join(transcript.prompts),
            questions=transcript.questions,
            said=transcript.said,
            files=tuple(transcript.files),
            question=transcript.question,
            input_tokens=transcript.input_tokens + (count_tokens(compact(tools)) if tools else 0),
            max_tokens=token_limit(body, "max_completion_tokens")
            or token_limit(body, "max_tokens"),
            tools=tuple(_tool(tool) for tool in tools),
            tool_choice=_tool_choice(body.get("tool_choice")),
            tool_results=tuple(transcript.results),
            tool_turns=transcript.tool_turns,
            wants_json=format_.get("type") == "json_object",
            schema=object_in(format_, "json_schema").get("schema"),
            stream=bool(body.get("stream")),
            include_usage=bool(object_in(body, "stream_options").get("include_usage")),
            service_tier=served_tier(body),
        )

    def charge(self, answer: Answer) -> Charge:
        """Return the amounts: one request, and the larger of max_tokens and the prompt's tokens."""
        usage = answer.usage
        return Charge(
            tokens=max(answer.request.max_tokens or 0, usage.input_tokens),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )

    def over_limit(self, excess: Excess, model: str) -> Refusal:
        """See `Wire`."""
        retry_after_s = excess.retry_after_s
        problem = "Request too large" if retry_after_s is None else "Rate limit reached"
        text = (
            f"{problem} for {model} in organization org-simulator on {_LIMITED[excess.meter]}: "
            f"Limit {excess.limit}, Used {excess.limit - excess.remaining}, "
            f"Requested {excess.requested}."
        )
        if retry_after_s is not None:
            text += f" Please try again in {duration(retry_after_s)}."
        kind = "requests" if excess.meter == "requests" else "tokens"
        return Refusal(429, text, kind=kind, retry_after_s=retry_after_s)

    def answer(self, answer: Answer) -> bytes:
        """See `Wire`."""
        reply = answer.reply
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
        if reply.refused:
            message |= {"content": None, "refusal": reply.text}
        if reply.tool_calls:
            message |= {"content": None, "tool_calls": [_call(call) for call in reply.tool_calls]}
        body = {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.request.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": _finish_reason(answer),
                }
            ],
            "usage": _usage(answer.usage),
            "service_tier": answer.request.service_tier,
            "system_fingerprint": "fp_simulator",
        }
        return compact(body).encode("utf-8", "replace")

    def events(self, answer: Answer) -> list[Event]:
        """Make the chunks and `[DONE]`; if the request asks for the usage, add the usage."""
        head = compact(
            {
                "id": f"chatcmpl-{answer.id}",
                "object": "chat.completion.chunk",
                "created": answer.created,
                "model": answer.request.model,
                "service_tier": answer.request.service_tier,
                "system_fingerprint": "fp_simulator",
            }
        )[:-1]
        usage = ',"usage":null' if answer.request.include_usage else ""
        events = []
        for delta, reason, tokens in _deltas(answer):
            choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}'
            text = f'data: {head},"choices":[{choice}]{usage}}}\n\n'
            events.append(Event(text.encode("utf-8", "replace"), tokens))
        total = answer.usage.output_tokens
        if answer.request.include_usage:
            text = f'data: {head},"choices":[],"usage":{compact(_usage(answer.usage))}}}\n\n'
            events.append(Event(text.encode(), total))
        return [*events, Event(b"data: [DONE]\n\n", total)]

    def error(self, refusal: Refusal, record: Record) -> bytes:
        """See `Wire`; the body has no request id, because OpenAI sends the id only in a header."""
        return compact(openai_error(refusal, record.model)).encode("utf-8", "replace")

    def error_in_200(self, refusal: Refusal, record: Record) -> bytes:
        """See `Wire`; the body is the same as for the error's own status."""
        return self.error(refusal, record)

    def error_event(self, refusal: Refusal, record: Record) -> bytes:
        """See `Wire`."""
        return b"data: " + self.error(refusal, record) + b"\n\n"

    def limit_headers(self, states: Sequence[MeterState]) -> dict[str, str]:
        """Make the headers `x-ratelimit-*`; the reset is a duration such as `6m0s`."""
        headers: dict[str, str] = {}
        for state in states:
            if state.name in ("requests", "tokens"):
                headers |= {
                    f"x-ratelimit-limit-{state.name}": str(state.limit),
                    f"x-ratelimit-remaining-{state.name}": str(state.remaining),
                    f"x-ratelimit-reset-{state.name}": duration(state.reset_s),
                }
        return headers

    def retry_headers(self, retry_after_s: float) -> dict[str, str]:
        """Make a header in whole seconds and a header in milliseconds, both rounded up."""
        return {
            "retry-after": str(math.ceil(retry_after_s)),
            "retry-after-ms": str(math.ceil(retry_after_s * 1000)),
        }


def served_tier(body: Mapping[str, Any]) -> str:
    """Return the tier that serves a request: the request's own tier, or the default tier."""
    tier = body.get("service_tier")
    return str(tier) if tier not in (None, "auto") else "default"


def duration(seconds: float) -> str:
    """Write a duration in OpenAI's form, such as `120ms`, `7.66s`, `6m0s` or `1h0m0s`.

    The duration is rounded up to a whole millisecond.
    """
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if not milliseconds // 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{milliseconds / 1000:g}s"
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text


def _read_message(transcript: Transcript, message: Mapping[str, Any]) -> None:
    role, text = message.get("role"), text_of(message.get("content"))
    if role in ("system", "developer"):
        transcript.instruction(text)
    elif role == "user":
        transcript.user(text)
    elif role == "assistant":
        transcript.assistant(text, [_past_call(call) for call in objects_in(message, "tool_calls")])
    elif role == "tool":
        transcript.result(str(message.get("tool_call_id")), text)
    else:
        raise Refusal(400, f"Invalid value: {role!r}. Supported values are: 'system', 'assistant', "
                           "'user', 'tool', and 'developer'.")  # fmt: skip


def _past_call(call: Mapping[str, Any]) -> ToolCall:
    function = object_in(call, "function")
    return ToolCall(
        id=str(call.get("id")),
        name=str(function.get("name", "")),
        arguments=str(function.get("arguments", "")),
    )


def _tool(tool: Mapping[str, Any]) -> Tool:
    function = object_in(tool, "function")
    return Tool(name=field(function, "name", str), schema=object_in(function, "parameters"))


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str(object_in(choice, "function").get("name", "required"))
    return str(choice or "auto")


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{call.id}", "type": "function", "function": function}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish_reason(answer: Answer) -> str:
    if answer.reply.cut:
        return "length"
    return "tool_calls" if answer.reply.tool_calls else "stop"


def _deltas(answer: Answer) -> Iterator[tuple[str, str, int]]:
    """Yield each delta and finish reason as JSON, with the number of output tokens up to there."""
    reply, tokens = answer.reply, answer.usage.reasoning_tokens
    content = "null" if reply.tool_calls else '""'
    yield f'{{"role":"assistant","content":{content},"refusal":null}}', "null", tokens
    name = "refusal" if reply.refused else "content"
    for piece, sent in pieces(reply.text):
        yield f'{{"{name}":{compact(piece)}}}', "null", tokens + sent
    for index, call in enumerate(reply.tool_calls):
        tokens += count_tokens(call.name)
        opening = {"index": index, **_call(call), "function": {"name": call.name, "arguments": ""}}
        yield compact({"tool_calls": [opening]}), "null", tokens
        for piece, sent in pieces(call.arguments):
            part = {"index": index, "function": {"arguments": piece}}
            yield compact({"tool_calls": [part]}), "null", tokens + sent
        tokens += count_tokens(call.arguments)
    yield "{}", f'"{_finish_reason(answer)}"', answer.usage.output_tokens

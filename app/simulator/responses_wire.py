"""OpenAI's Responses API: request bodies, answers and streams.

Keys, limits, errors and headers are the same as for chat completions, because both request forms
belong to one provider. The simulator keeps no responses, so every request has the whole
conversation. This file is over 400 lines because requests, answers and streams share the form of
their items.
"""

from collections.abc import Iterator, Mapping
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
from app.simulator.facts import digest_of
from app.simulator.ledger import Record
from app.simulator.media import responses_media
from app.simulator.openai_rules import check_responses, reasons
from app.simulator.openai_wire import OpenAIWire, served_tier
from app.simulator.responses_tools import (
    NAMES,
    PROGRAM,
    annotations_of,
    containers_in,
    gigabytes_in,
    item_of,
    past_program,
    past_search,
    server_tools_in,
    tool_usage,
    use_tokens,
)
from app.simulator.wire import (
    Event,
    as_object,
    compact,
    field,
    object_in,
    objects_in,
    pieces,
    refuse_others,
    text_of,
    token_limit,
)

_SEALED = "reasoning.encrypted_content"
_SEAL = "gAAAAAB"
_OUTPUTS = "code_interpreter_call.outputs"
_FAILURES = {429: "rate_limit_exceeded", 503: "server_is_overloaded", 529: "server_is_overloaded"}
_COUNTED = frozenset(
    {"conversation", "input", "instructions", "model", "parallel_tool_calls", "personality"}
    | {"previous_response_id", "reasoning", "text", "tool_choice", "tools", "truncation"}
)
_ECHOED = ("instructions", "metadata", "parallel_tool_calls", "reasoning", "text", "tool_choice")


class ResponsesWire(OpenAIWire):
    """See `Wire`."""

    def parse(self, body: Any) -> ChatRequest:
        """See `Wire`."""
        body = as_object(body)
        model = field(body, "model", str)
        check_responses(body, model)
        transcript = Transcript()
        if body.get("instructions"):
            transcript.instruction(text_of(body["instructions"]))
        _read_input(transcript, body, model)
        tools = objects_in(body, "tools")
        format_ = object_in(object_in(body, "text"), "format")
        effort = object_in(body, "reasoning").get("effort")
        return ChatRequest(
            provider=self.provider,
            model=model,
            prompt="\n".join(transcript.prompts),
            questions=transcript.questions,
            question=transcript.question,
            files=tuple(transcript.files),
            input_tokens=transcript.input_tokens + (count_tokens(compact(tools)) if tools else 0),
            max_tokens=token_limit(body, "max_output_tokens"),
            tools=tuple(
                _tool(index, tool)
                for index, tool in enumerate(tools)
                if tool.get("type") not in NAMES
            ),
            server_tools=server_tools_in(body),
            server_turns=transcript.server_turns,
            containers=containers_in(body),
            gigabytes=gigabytes_in(body),
            shows_outputs=_OUTPUTS in (body.get("include") or ()),
            tool_choice=_tool_choice(body.get("tool_choice")),
            tool_results=tuple(transcript.results),
            tool_turns=transcript.tool_turns,
            wants_json=format_.get("type") == "json_object",
            schema=format_.get("schema"),
            stream=bool(body.get("stream")),
            include_usage=True,
            service_tier=served_tier(body),
            reasons=reasons(model, effort),
            sealed=_SEALED in (body.get("include") or ()),
            echoed={name: body[name] for name in _ECHOED if name in body} | {"tools": tools},
        )

    def parse_count(self, body: Any) -> ChatRequest:
        """See `CountingWire`."""
        body = as_object(body)
        refuse_others(body, _COUNTED, "Unknown parameter: '{name}'.")
        return self.parse(body)

    def count(self, input_tokens: int) -> bytes:
        """See `CountingWire`."""
        return compact({"object": "response.input_tokens", "input_tokens": input_tokens}).encode()

    def answer(self, answer: Answer) -> bytes:
        """See `Wire`."""
        return compact(_response(answer, _status(answer))).encode("utf-8", "replace")

    def events(self, answer: Answer) -> list[Event]:
        """Make all events; the last event has the whole response with the usage."""
        status, total = _status(answer), answer.usage.output_tokens
        started = _response(answer, "in_progress")
        parts: list[tuple[dict[str, Any], int]] = [
            ({"type": "response.created", "response": started}, 0),
            ({"type": "response.in_progress", "response": started}, 0),
        ]
        tokens = answer.usage.reasoning_tokens
        for index, item in enumerate(_output(answer)):
            parts.extend(_item_events(index, item, tokens))
            tokens = parts[-1][1]
        ending = {"type": f"response.{status}", "response": _response(answer, status)}
        parts.append((ending, total))
        return [
            Event(_sse({**data, "sequence_number": number}), sent)
            for number, (data, sent) in enumerate(parts)
        ]

    def error_in_200(self, refusal: Refusal, record: Record) -> bytes:
        """See `Wire`; the body is a response that has failed."""
        return compact(_failed(refusal, record)).encode("utf-8", "replace")

    def error_event(self, refusal: Refusal, record: Record) -> bytes:
        """Make the last event of a failed response; the event has the usage until the failure."""
        # The number of the event is not known here, and no client reads it.
        event = {"type": "response.failed", "response": _failed(refusal, record)}
        return _sse({**event, "sequence_number": 0})


def _read_input(transcript: Transcript, body: Mapping[str, Any], model: str) -> None:
    given = field(body, "input", (str, list))
    if isinstance(given, str):
        transcript.user(given)
        return
    said: list[str] = []
    calls: list[ToolCall] = []
    used: list[int] = []
    reasoned = False
    for index, item in enumerate(objects_in(body, "input")):
        kind, role = item.get("type") or "message", item.get("role")
        if kind == "reasoning":
            transcript.input_tokens += _reasoning_tokens(item)
            reasoned = True
            continue
        if kind == "web_search_call":
            used.append(past_search(index, item))
        elif kind == PROGRAM:
            used.append(past_program(index, item))
        elif kind == "function_call":
            calls.append(_past_call(index, item))
        elif kind == "message" and role == "assistant":
            said.append(text_of(item.get("content")))
        else:
            if reasoned and not (said or calls or used):
                raise Refusal(
                    400,
                    "Item of type 'reasoning' was provided without its required following item.",
                    param="input",
                )
            _end_turn(transcript, said, calls, used)
            reasoned = False
            _read_item(transcript, index, kind, item)
            for media in responses_media(item.get("content"), model):
                transcript.file(media.sha256, media.tokens)
    _end_turn(transcript, said, calls, used)
    transcript.close_calls()


def _end_turn(
    transcript: Transcript, said: list[str], calls: list[ToolCall], used: list[int]
) -> None:
    """Add the items of one answer as one message of the assistant; the items stand side by side."""
    if said or calls or used:
        transcript.assistant("\n".join(said), calls, sum(used) if used else None)
    said.clear()
    calls.clear()
    used.clear()


def _read_item(transcript: Transcript, index: int, kind: str, item: Mapping[str, Any]) -> None:
    if kind == "function_call_output":
        transcript.result(str(item.get("call_id")), text_of(item.get("output")))
        return
    if kind != "message":
        raise Refusal(400, f"Invalid value: '{kind}'.", param=f"input[{index}].type")
    role, text = item.get("role"), text_of(item.get("content"))
    if role in ("system", "developer"):
        transcript.instruction(text)
    elif role == "user":
        transcript.user(text)
    else:
        raise Refusal(
            400,
            f"Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', "
            "and 'user'.",
            param=f"input[{index}].role",
        )


def _reasoning_tokens(item: Mapping[str, Any]) -> int:
    """Count earlier reasoning; only reasoning with sealed content can be read again."""
    sealed = item.get("encrypted_content")
    if not sealed:
        raise Refusal(
            404,
            f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is "
            "set to false. Try again with `store` set to true, or remove this item from your "
            "input.",
            param="input",
        )
    if not isinstance(sealed, str) or sealed != _seal(sealed[len(_SEAL) :][: len(digest_of(""))]):
        raise Refusal(
            400,
            f"The encrypted content for item {item.get('id')} could not be verified.",
            code="invalid_encrypted_content",
        )
    return count_tokens(sealed)


def _seal(content: str) -> str:
    return f"{_SEAL}{content}{digest_of(content)}"


def _past_call(index: int, item: Mapping[str, Any]) -> ToolCall:
    for name in ("call_id", "name", "arguments"):
        if not isinstance(item.get(name), str):
            raise Refusal(
                400,
                f"Missing required parameter: 'input[{index}].{name}'.",
                code="missing_required_parameter",
                param=f"input[{index}].{name}",
            )
    return ToolCall(id=item["call_id"], name=item["name"], arguments=item["arguments"])


def _tool(index: int, tool: Mapping[str, Any]) -> Tool:
    if tool.get("type") != "function":
        raise Refusal(
            400,
            "The simulator has only function tools, web_search and code_interpreter.",
            param=f"tools[{index}].type",
        )
    if not tool.get("name"):
        raise Refusal(
            400,
            f"Missing required parameter: 'tools[{index}].name'.",
            code="missing_required_parameter",
            param=f"tools[{index}].name",
        )
    return Tool(name=str(tool["name"]), schema=object_in(tool, "parameters"))


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str(choice.get("name", "required"))
    return str(choice or "auto")


def _status(answer: Answer) -> str:
    return "incomplete" if answer.reply.cut else "completed"


def _output(answer: Answer) -> list[dict[str, Any]]:
    reply, items = answer.reply, list[dict[str, Any]]()
    if answer.request.reasons:
        sealed = _seal(digest_of(answer.request.prompt)) if answer.request.sealed else None
        items.append(
            {"id": f"rs_{answer.id}", "type": "reasoning", "summary": []}
            | ({"encrypted_content": sealed} if sealed else {})
        )
    items += [item_of(call, answer) for call in reply.server_calls]
    if reply.tool_calls:
        return [*items, *map(_call, reply.tool_calls)]
    annotations = annotations_of(reply)
    part: dict[str, Any] = {"type": "output_text", "annotations": annotations, "logprobs": []}
    part["text"] = reply.text
    if reply.refused:
        part = {"type": "refusal", "refusal": reply.text}
    message = {
        "id": f"msg_{answer.id}",
        "type": "message",
        "status": _status(answer),
        "role": "assistant",
        "content": [part],
    }
    return [*items, message]


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_{call.id}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{call.id}",
        "name": call.name,
        "arguments": call.arguments,
    }


def _response(answer: Answer, status: str) -> dict[str, Any]:
    done = status != "in_progress"
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": reason,
        "max_output_tokens": answer.request.max_tokens,
        "model": answer.request.model,
        "output": _output(answer) if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": answer.request.service_tier if done else "auto",
        "store": False,
        "tool_choice": "auto",
        "truncation": "disabled",
        "usage": _usage(answer.usage) if done else None,
        **(tool_usage(answer) if done else {}),
        **answer.request.echoed,
    }


def _failed(refusal: Refusal, record: Record) -> dict[str, Any]:
    error = openai_error(refusal, record.model)["error"]
    usage = Usage(
        input_tokens=record.input_tokens,
        cached_tokens=record.cached_tokens,
        cache_write_tokens=record.cache_write_tokens,
        output_tokens=record.output_tokens,
        reasoning_tokens=0,
    )
    return {
        "id": f"resp_{record.request_id.removeprefix('req_')}",
        "object": "response",
        "status": "failed",
        "error": {
            "code": error["code"] or _FAILURES.get(refusal.status, "server_error"),
            "message": error["message"],
        },
        "incomplete_details": None,
        "model": record.model,
        "output": [],
        "usage": _usage(usage),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _item_events(
    index: int, item: dict[str, Any], tokens: int
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the events of one item; `tokens` is the number of tokens before the item."""
    added = {"type": "response.output_item.added", "output_index": index}
    done = {"type": "response.output_item.done", "output_index": index, "item": item}
    place = {"item_id": item["id"], "output_index": index}
    if item["type"] == "web_search_call":
        yield added | {"item": {**item, "status": "in_progress"}}, tokens
        tokens += use_tokens(item)
        for state in ("in_progress", "searching", "completed"):
            yield {"type": f"response.web_search_call.{state}", **place}, tokens
    elif item["type"] == PROGRAM:
        started = {**item, "status": "in_progress", "code": "", "outputs": None}
        yield added | {"item": started}, tokens
        kind, code, tokens = f"response.{PROGRAM}", item["code"], tokens + use_tokens(item)
        yield {"type": f"{kind}.in_progress", **place}, tokens
        yield {"type": f"{kind}_code.delta", **place, "delta": code}, tokens
        yield {"type": f"{kind}_code.done", **place, "code": code}, tokens
        yield {"type": f"{kind}.interpreting", **place}, tokens
        yield {"type": f"{kind}.completed", **place}, tokens
    elif item["type"] == "reasoning":
        yield added | {"item": {**item, "status": "in_progress"}}, tokens
    elif item["type"] == "function_call":
        tokens += count_tokens(item["name"])
        yield added | {"item": {**item, "status": "in_progress", "arguments": ""}}, tokens
        kind, text = "response.function_call_arguments", item["arguments"]
        for piece, sent in pieces(text):
            yield {"type": f"{kind}.delta", **place, "delta": piece}, tokens + sent
        tokens += count_tokens(text)
        yield {"type": f"{kind}.done", **place, "name": item["name"], "arguments": text}, tokens
    else:
        yield added | {"item": {**item, "status": "in_progress", "content": []}}, tokens
        (part,) = item["content"]
        place["content_index"] = 0
        name = "refusal" if part["type"] == "refusal" else "text"
        kind, text = f"response.{part['type']}", part[name]
        yield {"type": "response.content_part.added", **place, "part": {**part, name: ""}}, tokens
        for piece, sent in pieces(text):
            yield {"type": f"{kind}.delta", **place, "delta": piece, "logprobs": []}, tokens + sent
        tokens += count_tokens(text)
        yield {"type": f"{kind}.done", **place, name: text, "logprobs": []}, tokens
        yield {"type": "response.content_part.done", **place, "part": part}, tokens
    yield done, tokens


def _sse(data: Mapping[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {compact(data)}\n\n".encode("utf-8", "replace")

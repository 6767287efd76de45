"""Whatever was read from a provider can be sent back, in each request form."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.llm.answers import Answer
from app.llm.anthropic import AnthropicClient
from app.llm.anthropic_answer import read_message
from app.llm.base import LLMResponse, Message, ToolCall
from app.llm.call_ids import unique
from app.llm.openai import OpenAIClient
from app.llm.openai_answer import read_completion
from app.llm.openai_responses import ResponsesClient
from app.llm.responses_answer import read_response
from app.llm.sdk import SdkClient
from app.llm.sendable import sendable
from workers.agents.conversation import decode_message, encode_message

OPENAI = OpenAIClient("key", base_url="http://127.0.0.1:9/v1")
CLIENTS: Mapping[str, SdkClient] = {
    "openai": OPENAI,
    "responses": ResponsesClient("key", connect=OPENAI._connection),
    "anthropic": AnthropicClient("key", base_url="http://127.0.0.1:9"),
}
MODELS = {"openai": "gpt-4o", "responses": "gpt-5.6-terra", "anthropic": "claude-sonnet-4-6"}
HALF, WHOLE = "\ud83d", "\N{GRINNING FACE}"
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ["", HALF, f"a{HALF} b", WHOLE, "\0", "functions.check", "check total", "x" * 200, "[" * 300]
)
NUMBERS = st.sampled_from([2**70, -(2**1100), 10**400, 1.5, 1e300, float("inf"), 0])
VALUES = st.recursive(
    TEXTS | NUMBERS | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = TEXTS | VALUES.map(json.dumps) | st.just('{"a": "\\ud83d", "b": 1' + "0" * 400 + "}")
NAMES = {
    "openai": re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    "responses": re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    "anthropic": re.compile(r"[a-zA-Z0-9_-]{1,128}"),
}


def deep(levels: int) -> Any:
    value: Any = HALF
    for _ in range(levels):
        value = [value]
    return value


ODD = VALUES | st.sampled_from([deep(150), deep(300)])


@st.composite
def chat_answers(draw: st.DrawFn) -> Answer:
    calls = [
        {"id": draw(TEXTS), "function": {"name": draw(TEXTS), "arguments": draw(ARGUMENTS)}}
        for _ in range(draw(st.integers(0, 2)))
    ]
    message = {"content": draw(TEXTS), "tool_calls": calls, "reasoning_details": draw(ODD)}
    message["reasoning_content"] = draw(TEXTS)
    return read_completion({"choices": [{"message": message, "finish_reason": "stop"}]})


@st.composite
def anthropic_answers(draw: st.DrawFn) -> Answer:
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": draw(TEXTS), "signature": draw(TEXTS)},
        {"type": "text", "text": draw(TEXTS), "citations": draw(ODD)},
    ]
    blocks += [
        {"type": "tool_use", "id": draw(TEXTS), "name": draw(TEXTS), "input": draw(ODD)}
        for _ in range(draw(st.integers(0, 2)))
    ]
    content = blocks[draw(st.integers(0, 1)) :]
    return read_message({"content": content, "stop_reason": "end_turn"})


@st.composite
def responses_answers(draw: st.DrawFn) -> Answer:
    summary = [{"type": "summary_text", "text": draw(TEXTS)}]
    output: list[dict[str, Any]] = [
        {"type": "reasoning", "summary": summary, "encrypted_content": draw(TEXTS)},
        {"type": "message", "content": [{"type": "output_text", "text": draw(TEXTS)}]},
    ]
    output += [
        {
            "type": "function_call",
            "call_id": draw(TEXTS),
            "name": draw(TEXTS),
            "arguments": draw(ARGUMENTS),
            "caller": draw(ODD),
        }
        for _ in range(draw(st.integers(0, 2)))
    ]
    return read_response({"output": output, "status": "completed"})


ANSWERS = {
    "openai": chat_answers(),
    "responses": responses_answers(),
    "anthropic": anthropic_answers(),
}


def response_of(answer: Answer, origin: str) -> LLMResponse:
    original = answer.original and {"by": origin, "message": answer.original}
    return LLMResponse(
        content=answer.text,
        model="m",
        input_tokens=1,
        output_tokens=1,
        tool_calls=unique(answer.calls) or None,
        metadata={"original": original} if original else {},
    )


def continued(answers: Sequence[LLMResponse], result: str) -> list[Message]:
    """A conversation that goes on after these answers."""
    messages: list[Message] = []
    for answer in answers:
        messages.append({"role": "user", "content": "Go on."})
        messages.append(answer.as_message())
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": result}
            for call in answer.tool_calls or ()
        ]
    return messages


def sent(form: str, messages: Sequence[Message], **params: Any) -> bytes:
    client = CLIENTS[form]
    body, _ = client._request(messages, MODELS[form], (), 100, params)
    return client._encoded(body)


def parts_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a body."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from parts_of(part)


def calls_in(form: str, body: Any) -> Iterator[tuple[str, Any]]:
    """Name and arguments of each tool call in a body."""
    if form == "responses":
        for item in body["input"]:
            if item.get("type") == "function_call":
                yield item["name"], item["arguments"]
        return
    for message in body["messages"]:
        if message["role"] != "assistant":
            continue
        for call in message.get("tool_calls") or ():
            yield call["function"]["name"], call["function"]["arguments"]
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block.get("type") == "tool_use":
                yield block["name"], block["input"]


@pytest.mark.parametrize("form", CLIENTS)
@given(data=st.data())
def test_every_answer_can_go_back_to_every_provider(form: str, data: st.DataObject) -> None:
    given_ = [
        response_of(data.draw(ANSWERS[each]), CLIENTS[each].origin)
        for each in data.draw(st.lists(st.sampled_from(sorted(CLIENTS)), min_size=1, max_size=3))
    ]
    messages = continued(given_, data.draw(TEXTS))
    stored = [
        decode_message(encode_message(message)) if message.get("tool_calls") else message
        for message in messages
    ]

    content = sent(form, messages)

    content.decode()
    body = json.loads(content, parse_constant=pytest.fail)
    calls = list(calls_in(form, body))
    assert len(calls) == sum(len(answer.tool_calls or ()) for answer in given_)
    assert all(NAMES[form].fullmatch(name) for name, _ in calls)
    assert all(isinstance(told, dict if form == "anthropic" else str) for _, told in calls)
    assert sent(form, stored) == content


@given(ODD)
def test_what_can_be_written_is_not_touched(value: Any) -> None:
    found = sendable(value)

    text = orjson.dumps([[[[[[found]]]]]])
    try:
        plain = orjson.dumps([[[[[[[[value]]]]]]]])
    except TypeError:
        assert "\ud83d" not in text.decode()
    else:
        assert found is value
        assert plain == b"[[" + text + b"]]"


def test_only_the_half_characters_change_and_integers_keep_all_their_digits() -> None:
    value = {f"k{HALF}": [f"a{HALF}{WHOLE}", 10**400, 1.5, None, True, 2**64]}

    assert json.loads(orjson.dumps(sendable(value))) == {
        "k\ufffd": [f"a\ufffd{WHOLE}", 10**400, 1.5, None, True, 2**64]
    }
    assert value == {f"k{HALF}": [f"a{HALF}{WHOLE}", 10**400, 1.5, None, True, 2**64]}


@pytest.mark.parametrize("form", CLIENTS)
def test_half_characters_of_the_user_are_refused(form: str) -> None:
    with pytest.raises(BadRequest, match="half a surrogate pair"):
        sent(form, [{"role": "user", "content": f"Say {HALF}."}])
    with pytest.raises(BadRequest, match="half a surrogate pair"):
        sent(form, [{"role": "user", "content": "Hello."}], system=HALF)


@pytest.mark.parametrize(
    ("called", "told"),
    [
        ("check_total", "check_total"),
        ("", "unknown"),
        (" ", "unknown"),
        ("functions.check_total", "functions_check_total"),
        ("check total", "check_total"),
        ("x" * 65, "x" * 64),
    ],
)
@pytest.mark.parametrize("form", ["openai", "responses"])
def test_names_have_the_form_that_providers_take(form: str, called: str, told: str) -> None:
    call = ToolCall(id="call_1", name=called, arguments="{}")
    message: Message = {"role": "assistant", "content": "", "tool_calls": [call]}

    body = json.loads(sent(form, [message]))

    assert list(calls_in(form, body)) == [(told, "{}")]
    assert message["tool_calls"] == [replace(call)]


@pytest.mark.parametrize("given_", ["x", ["a"], '{"a": 1}', None, 5])
def test_an_input_goes_back_as_an_object(given_: Any) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "a.b", "input": given_}
    answer = read_message({"content": [thought, use], "stop_reason": "tool_use"})

    body = json.loads(sent("anthropic", continued([response_of(answer, "anthropic")], "x")))

    came, called = body["messages"][1]["content"]
    assert came == thought
    assert called["name"] == "a_b"
    assert isinstance(called["input"], dict)

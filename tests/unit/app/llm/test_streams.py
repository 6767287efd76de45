"""Streamed answers put together, from the forms in the providers' documentation.

Over 400 lines because it has the events of both protocols as they are sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

import pytest

from app.domain.usage import Usage
from app.llm import streams
from app.llm.anthropic_stream import AnthropicAssembly
from app.llm.openai_stream import OpenAIAssembly
from app.llm.streams import Assembly, Reading
from app.llm.wire import PROTOCOL_ERRORS

A = TypeVar("A", bound=Assembly)
OPENAI_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "total_tokens": 99,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
ANTHROPIC_START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-sonnet-5",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 25,
            "cache_read_input_tokens": 700,
            "cache_creation_input_tokens": 300,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 300},
            "output_tokens": 1,
        },
    },
}
ANTHROPIC_STOP = {"type": "message_stop"}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "choices": [choice],
        "usage": None,
    }


def usage_chunk(usage: dict[str, Any] = OPENAI_USAGE) -> dict[str, Any]:
    return {**chunk(), "choices": [], "usage": usage}


def call_delta(index: int, arguments: str, **opening: Any) -> dict[str, Any]:
    name = opening.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, **opening, "function": function}]}


def block_start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def block_stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def message_delta(stop_reason: str | None = "end_turn", **usage: int) -> dict[str, Any]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": usage}


def openai(events: Iterable[Any] = (), **request: Any) -> tuple[OpenAIAssembly, str]:
    return assembled(OpenAIAssembly({"model": "gpt-4o-mini", **request}), events)


def anthropic(events: Iterable[Any] = (), **request: Any) -> tuple[AnthropicAssembly, str]:
    return assembled(AnthropicAssembly({"model": "claude-sonnet-5", **request}), events)


def assembled(assembly: A, events: Iterable[Any]) -> tuple[A, str]:
    return assembly, "".join([assembly.add(event) for event in events])


def bounded(assembly: Assembly) -> Usage:
    return assembly.bounded(prompt_tokens=1000, max_tokens=400)


def test_a_text_of_openai_with_its_usage_in_a_chunk_without_choices() -> None:
    assembly, text = openai(
        [
            chunk({"role": "assistant", "content": "", "refusal": None}),
            chunk({"content": "Hel"}),
            chunk({"content": "lo"}),
            chunk(finish="stop"),
            usage_chunk(),
        ]
    )

    assert text == "Hello"
    assert (assembly.complete, assembly.final, assembly.model) == (
        True,
        True,
        "gpt-4o-mini-2024-07-18",
    )
    assert assembly.answer() == {
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "message": {"content": "Hello"},
                "finish_reason": "stop",
                "native_finish_reason": None,
                "error": None,
            }
        ],
        "usage": OPENAI_USAGE,
        "service_tier": "default",
    }
    assert bounded(assembly) == Usage(
        input_tokens=18, cached_tokens=64, output_tokens=17, reasoning_tokens=5
    )


def test_parallel_calls_of_openai_are_told_apart_by_their_index() -> None:
    assembly, text = openai(
        [
            chunk({"role": "assistant", "content": None}),
            chunk(call_delta(0, "", id="call_a", type="function", name="look_up")),
            chunk(call_delta(0, '{"key": ')),
            chunk(call_delta(1, "", id="call_b", type="function", name="add")),
            chunk(call_delta(1, '{"a": 1}')),
            chunk(call_delta(0, '"x"}')),
            chunk(finish="tool_calls"),
            usage_chunk(),
        ]
    )

    (choice,) = assembly.answer()["choices"]
    assert text == ""
    assert choice["finish_reason"] == "tool_calls"
    assert [(call["id"], call["function"]) for call in choice["message"]["tool_calls"]] == [
        ("call_a", {"name": "look_up", "arguments": '{"key": "x"}'}),
        ("call_b", {"name": "add", "arguments": '{"a": 1}'}),
    ]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    parts = [
        {"id": "call_a", "function": {"name": "look_up", "arguments": '{"key":'}},
        {"function": {"arguments": '"x"}'}},
        {"id": "call_b", "function": {"name": "add", "arguments": "{}"}},
    ]

    assembly, _ = openai([chunk({"tool_calls": [part]}) for part in parts])

    calls = assembly.answer()["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ['{"key":"x"}', "{}"]


def test_a_refusal_of_openai_is_no_text_of_the_answer() -> None:
    assembly, text = openai(
        [chunk({"refusal": "I cannot "}), chunk({"refusal": "do that."}), chunk(finish="stop")]
    )

    message = assembly.answer()["choices"][0]["message"]
    assert (text, message) == ("", {"refusal": "I cannot do that."})


def test_the_prompt_of_a_stream_of_openai_is_a_bound_until_its_usage_comes() -> None:
    assembly, _ = openai([chunk({"content": "é" * 10})])

    assert not assembly.prompt_counted
    assert bounded(assembly) == Usage(input_tokens=1000, output_tokens=20 + 64)


def test_servers_that_count_as_they_go_tell_the_prompt_before_the_end() -> None:
    counting = {"prompt_tokens": 82, "completion_tokens": 150}

    assembly, _ = openai([chunk({"content": "word"}) | {"usage": counting}])

    assert (assembly.prompt_counted, assembly.final) == (True, False)
    assert bounded(assembly) == Usage(input_tokens=82, output_tokens=150)


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "gpt-6.1-terra"},
        {"model": "o3"},
        {"model": "gpt-5.1", "reasoning_effort": "high"},
        {"model": "openai/gpt-oss-20b", "reasoning_effort": "low"},
        {"model": "deepseek-r2", "thinking": {"type": "enabled"}},
    ],
)
def test_reasoning_that_is_not_streamed_may_be_all_that_was_allowed(
    request_: dict[str, Any],
) -> None:
    assembly, _ = openai([chunk({"content": "Hi"})], **request_)

    assert bounded(assembly).output_tokens == 400


def test_reasoning_that_is_streamed_counts_whatever_it_is_called() -> None:
    assembly, text = openai([chunk({"reasoning_content": "Hm. " * 20}), chunk({"content": "Yes"})])

    assert text == "Yes"
    assert bounded(assembly).output_tokens == 80 + 3 + 64


def test_a_text_of_anthropic_with_its_usage_at_both_ends() -> None:
    assembly, text = anthropic(
        [
            ANTHROPIC_START,
            block_start(0, type="text", text=""),
            {"type": "ping"},
            block_delta(0, type="text_delta", text="Hello"),
            block_delta(0, type="text_delta", text="!"),
            block_stop(0),
            {"type": "an_event_of_the_future", "data": 1},
            message_delta(output_tokens=15),
            ANTHROPIC_STOP,
        ]
    )

    answer = assembly.answer()
    assert text == "Hello!"
    assert (assembly.complete, assembly.final, assembly.model) == (True, True, "claude-sonnet-5")
    assert answer["content"] == [{"type": "text", "text": "Hello!"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["usage"] == ANTHROPIC_START["message"]["usage"] | {"output_tokens": 15}
    assert bounded(assembly) == Usage(
        input_tokens=25, cached_tokens=700, cache_write_1h_tokens=300, output_tokens=15
    )


def test_reasoning_of_anthropic_is_kept_as_it_came_with_its_signature() -> None:
    assembly, text = anthropic(
        [
            ANTHROPIC_START,
            block_start(0, type="thinking", thinking="", signature=""),
            block_delta(0, type="thinking_delta", thinking="First, "),
            block_delta(0, type="thinking_delta", thinking="divide."),
            block_delta(0, type="signature_delta", signature="EqQBCgIYAhIM1gbcDa9GJwZA2b3h"),
            block_stop(0),
            block_start(1, type="redacted_thinking", data="EmwKAhgBEgy3va3pzix"),
            block_stop(1),
            block_start(2, type="text", text=""),
            block_delta(2, type="text_delta", text="27"),
            block_delta(2, type="citations_delta", citation={"cited_text": "3 x 9"}),
            block_stop(2),
            message_delta(output_tokens=40),
            ANTHROPIC_STOP,
        ]
    )

    assert text == "27"
    assert assembly.answer()["content"] == [
        {
            "type": "thinking",
            "thinking": "First, divide.",
            "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h",
        },
        {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"},
        {"type": "text", "text": "27", "citations": [{"cited_text": "3 x 9"}]},
    ]


@pytest.mark.parametrize(
    ("pieces", "arguments"),
    [
        (["", '{"location": "San', ' Francisco"}'], {"location": "San Francisco"}),
        ([], {}),
        (['{"location": "Sa'], {"arguments": '{"location": "Sa'}),
    ],
    ids=["in pieces", "none", "cut by max_tokens"],
)
def test_parallel_calls_of_anthropic_have_their_arguments(
    pieces: list[str], arguments: dict[str, Any]
) -> None:
    assembly, text = anthropic(
        [
            ANTHROPIC_START,
            block_start(0, type="text", text=""),
            block_delta(0, type="text_delta", text="Let me see."),
            block_stop(0),
            block_start(1, type="tool_use", id="toolu_1", name="first", input={}),
            block_delta(1, type="input_json_delta", partial_json='{"a": 1}'),
            block_stop(1),
            block_start(2, type="tool_use", id="toolu_2", name="weather", input={}),
            *(block_delta(2, type="input_json_delta", partial_json=piece) for piece in pieces),
            block_stop(2),
            message_delta("tool_use", output_tokens=89),
            ANTHROPIC_STOP,
        ]
    )

    assert text == "Let me see."
    assert assembly.answer()["content"][1:] == [
        {"type": "tool_use", "id": "toolu_1", "name": "first", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": arguments},
    ]


def test_a_broken_message_of_anthropic_has_the_providers_own_count_of_its_prompt() -> None:
    assembly, _ = anthropic(
        [
            ANTHROPIC_START,
            block_start(0, type="text", text=""),
            block_delta(0, type="text_delta", text="x" * 100),
        ]
    )

    assert (assembly.prompt_counted, assembly.complete, assembly.final) == (True, False, False)
    assert bounded(assembly) == Usage(
        input_tokens=25, cached_tokens=700, cache_write_1h_tokens=300, output_tokens=164
    )


def test_totals_of_a_message_overwrite_those_before_and_keep_what_they_do_not_tell() -> None:
    assembly, _ = anthropic(
        [ANTHROPIC_START, message_delta(None, output_tokens=70, input_tokens=26)],
        model="claude-haiku-4-5",
    )

    assert not assembly.final
    assert bounded(assembly) == Usage(
        input_tokens=26, cached_tokens=700, cache_write_1h_tokens=300, output_tokens=70
    )


def test_a_prompt_that_a_server_counts_at_the_end_only_is_bounded_until_then() -> None:
    message = ANTHROPIC_START["message"] | {"usage": {"input_tokens": 0, "output_tokens": 0}}

    assembly, _ = anthropic([{"type": "message_start", "message": message}])

    assert not assembly.prompt_counted
    assert bounded(assembly) == Usage(input_tokens=1000, output_tokens=400)


@pytest.mark.parametrize(
    ("request_", "events"),
    [
        ({"thinking": {"type": "adaptive"}}, []),
        ({}, [block_start(0, type="thinking", thinking="", signature="")]),
        ({}, []),
        ({}, [block_start(0, type="text", text="So"), block_stop(0)]),
    ],
    ids=["asked for", "seen", "perhaps before any block", "perhaps between two blocks"],
)
def test_thinking_may_be_more_than_its_summary_says(
    request_: dict[str, Any], events: list[Any]
) -> None:
    assembly, _ = anthropic([ANTHROPIC_START, *events], **request_)

    assert bounded(assembly).output_tokens == 400


@pytest.mark.parametrize(
    "request_", [{"model": "claude-haiku-4-5"}, {"thinking": {"type": "disabled"}}]
)
def test_a_model_that_does_not_think_has_generated_little_before_its_first_block(
    request_: dict[str, Any],
) -> None:
    assembly, _ = anthropic([ANTHROPIC_START], **request_)

    assert bounded(assembly).output_tokens == 64


def test_what_was_streamed_never_counts_as_more_than_was_allowed() -> None:
    assembly, _ = openai([chunk({"content": "x" * 4000})])

    assert bounded(assembly).output_tokens == 400


def test_nothing_is_billed_before_the_provider_has_begun_to_answer() -> None:
    assembly, _ = anthropic([{"type": "ping"}])

    assert not assembly.begun


@pytest.mark.parametrize(
    ("assemble", "event"),
    [
        (openai, "text"),
        (openai, {"choices": [7]}),
        (openai, chunk({"tool_calls": [7]})),
        (anthropic, []),
        (anthropic, {"type": "content_block_start", "index": 0}),
        (anthropic, block_delta(3, type="text_delta", text=5)),
    ],
)
def test_what_is_not_the_protocol_is_noticed(assemble: Callable[..., Any], event: Any) -> None:
    with pytest.raises(PROTOCOL_ERRORS):
        assemble([event])


@pytest.mark.anyio
async def test_a_stream_that_stays_open_is_over_some_time_after_the_word_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "LINGER_AFTER_WORD_S", 0.01)
    clock = asyncio.get_running_loop().time

    async def events(finish: str | None) -> AsyncIterator[Any]:
        yield {"choices": [{"delta": {"content": "hi"}, "finish_reason": finish}]}
        await asyncio.Event().wait()

    async def read(finish: str | None) -> Reading:
        assembly = OpenAIAssembly({"model": "gpt-4o-mini"})
        reading = Reading(assembly=assembly, on_text=None, clock=clock, started_at_s=clock())
        async with asyncio.timeout(0.5):
            await reading.take_all(events(finish))
        return reading

    whole = await read("stop")
    with pytest.raises(TimeoutError):
        await read(None)

    assert whole.over
    assert whole.assembly.complete

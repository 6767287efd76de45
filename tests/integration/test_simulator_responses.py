"""The simulated Responses API, through OpenAI's own SDK."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseCompletedEvent,
    ResponseInputItemParam,
)

from app.simulator import Simulator, SimulatorConfig
from tests.support.sdk_clients import openai_sdk

pytestmark = pytest.mark.anyio

MODEL = "gpt-4o"
REASONS = "gpt-5.6-terra"
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "lookup_vendor",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"vendor": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["vendor", "limit"],
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "number"}},
    "required": ["total"],
    "additionalProperties": False,
}
QUESTION = 'What does the vendor "Acme Supplies" owe us, at most 40 rows?'


@pytest.fixture
def client(openai_client: AsyncOpenAI) -> AsyncOpenAI:
    return openai_client


def without_ids(response: Response) -> dict[str, Any]:
    """An answer without the parts that differ from request to request."""
    told = response.model_dump(exclude={"id", "created_at"})
    return told | {"output": [{**item, "id": None} for item in told["output"]]}


def replayed(response: Response) -> list[ResponseInputItemParam]:
    """The items of an answer as a client without a store sends them back."""
    items = [item.model_dump(exclude_none=True) for item in response.output]
    return [{k: v for k, v in item.items() if k not in ("id", "status")} for item in items]  # type: ignore[misc]


async def ask(client: AsyncOpenAI, **given: Any) -> Response:
    body: dict[str, Any] = {"model": MODEL, "input": "Hello", "store": False} | given
    response: Response = await client.responses.create(**body)
    return response


async def test_a_response_has_text_and_the_usage_that_the_ledger_has(
    sim: Simulator, client: AsyncOpenAI
) -> None:
    answer = await ask(client, input="Tell me about lighthouses [[sim:cached_tokens=5]]")

    (record,) = sim.ledger()
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
        record.input_tokens,
        record.output_tokens,
    )
    assert answer.usage.input_tokens_details.cached_tokens == record.cached_tokens == 5
    assert answer.status == "completed"
    assert answer.output_text
    assert answer._request_id == record.request_id
    assert (record.endpoint, record.provider) == ("/v1/responses", "openai")


@pytest.mark.parametrize("model", [MODEL, REASONS])
async def test_a_stream_gives_the_same_response_as_the_plain_answer(
    sim: Simulator, client: AsyncOpenAI, model: str
) -> None:
    given: Any = {
        "model": model,
        "input": "Write a report on revenue [[sim:reasoning_tokens=9]]",
        "store": False,
    }
    plain = await client.responses.create(**given)

    events = [event async for event in await client.responses.create(**given, stream=True)]

    assert isinstance(events[-1], ResponseCompletedEvent)
    assert without_ids(events[-1].response) == without_ids(plain)
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == plain.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    reasoned = next(e for e in events if e.type == "response.output_item.done").item.type
    assert reasoned == ("reasoning" if model == REASONS else "message")
    first, second = sim.ledger()
    assert (first.output_tokens, second.streamed) == (second.output_tokens, True)


@pytest.mark.parametrize("model", [MODEL, REASONS])
async def test_a_tool_loop_ends_with_the_tools_result_in_the_text(
    client: AsyncOpenAI, model: str
) -> None:
    given: Any = {"model": model, "tools": [TOOL]}
    if model == REASONS:
        given["include"] = ["reasoning.encrypted_content"]
    conversation: list[ResponseInputItemParam] = [{"role": "user", "content": QUESTION}]
    first = await ask(client, input=conversation, **given)
    call = first.output[-1]
    assert call.type == "function_call"

    conversation += replayed(first)
    conversation.append(
        {"type": "function_call_output", "call_id": call.call_id, "output": "EUR 99.10 open"}
    )
    second = await ask(client, input=conversation, **given)

    assert json.loads(call.arguments) == {"vendor": "Acme Supplies", "limit": 40}
    assert "EUR 99.10 open" in second.output_text
    assert [item.type for item in second.output][-1] == "message"


async def test_streamed_arguments_come_in_pieces_and_make_the_same_call(
    client: AsyncOpenAI,
) -> None:
    plain = await ask(client, input=QUESTION, tools=[TOOL])
    stream = await client.responses.create(
        model=MODEL, input=QUESTION, tools=[TOOL], stream=True, store=False
    )
    pieces = [e.delta async for e in stream if e.type == "response.function_call_arguments.delta"]

    (call,) = plain.output
    assert call.type == "function_call"
    assert len(pieces) > 1
    assert "".join(pieces) == call.arguments


async def test_max_output_tokens_leaves_the_response_incomplete(client: AsyncOpenAI) -> None:
    answer = await ask(client, input="Go on [[sim:output_tokens=90]]", max_output_tokens=16)

    assert answer.usage is not None
    assert answer.incomplete_details is not None
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 16


async def test_a_schema_and_instructions_are_followed(client: AsyncOpenAI) -> None:
    format_ = {"type": "json_schema", "name": "output", "schema": SCHEMA, "strict": True}
    answer = await ask(client, input="Sum up", text={"format": format_})
    told = await ask(client, instructions="Answer with one of: red, blue.", input="Choose")

    assert json.loads(answer.output_text).keys() == {"total"}
    assert told.output_text in ("red", "blue")


async def test_a_refusal_is_a_part_of_its_own(client: AsyncOpenAI) -> None:
    answer = await ask(client, input="Misbehave [[sim:refuse]]")

    message = answer.output[0]
    assert message.type == "message"
    assert [part.type for part in message.content] == ["refusal"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"messages": []}, "has moved to 'input'"),
        ({"max_tokens": 50}, "has moved to 'max_output_tokens'"),
        ({"seed": 1}, "Unknown parameter: 'seed'"),
        ({"max_output_tokens": 9}, "Expected a value >= 16, but got 9"),
        ({"include": ["reasoning.encrypted_content"]}, "not supported with this model"),
        ({"model": REASONS, "temperature": 0.2}, "'temperature' is not supported"),
        ({"reasoning": {"effort": "low"}}, "'reasoning.effort' is not supported"),
        ({"model": "gpt-6.1-sol", "reasoning": {"effort": "none"}}, "does not support 'none'"),
        ({"background": True}, "remove 'background'"),
        ({"tools": [{"type": "function", "function": TOOL}]}, r"tools\[0\].name"),
        ({"tools": [{"type": "file_search"}]}, "only function tools"),
        ({"input": [{"type": "item_reference", "id": "rs_1"}]}, "'item_reference'"),
        ({"input": [{"role": "critic", "content": "x"}]}, "'critic'"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "no preceding tool call",
        ),
        (
            {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
            "Items are not persisted when `store` is set to false",
        ),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABxyz"}]},
            "could not be verified",
        ),
    ],
)
async def test_what_openai_refuses_is_refused(
    sim: Simulator, client: AsyncOpenAI, given: dict[str, Any], complaint: str
) -> None:
    body = {"model": MODEL, "input": "Hello", "store": False} | given

    with pytest.raises(openai.APIStatusError, match=complaint) as refused:
        await client.post("/responses", body=body, cast_to=object)

    assert refused.value.status_code in (400, 404)
    assert refused.value.body
    (record,) = sim.ledger()
    assert record.model == body["model"]


@pytest.mark.parametrize(
    ("model", "given", "complaint"),
    [
        ("gpt-5.5", {}, "Please use /v1/responses or set reasoning_effort to 'none'"),
        ("gpt-5.6-terra", {}, "not supported for gpt-5.6-terra in /v1/chat/completions"),
        ("gpt-6-astra", {"reasoning_effort": "low"}, "Please use /v1/responses"),
        ("gpt-5.4", {"reasoning_effort": "low"}, "Please use /v1/responses"),
        ("gpt-5.5", {"temperature": 0.2, "tools": []}, "'temperature' is not supported"),
        ("gpt-5.5", {"max_tokens": 9, "tools": []}, "Use 'max_completion_tokens'"),
        ("gpt-5.5", {"background": True, "tools": []}, "Unknown parameter: 'background'"),
        ("o3-pro", {}, "only supported in v1/responses"),
    ],
)
async def test_chat_completions_refuse_what_needs_the_responses_api(
    client: AsyncOpenAI, model: str, given: dict[str, Any], complaint: str
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = {"model": model, "messages": [{"role": "user", "content": "f"}], "tools": [tool]}

    with pytest.raises(openai.APIStatusError, match=complaint):
        await client.post("/chat/completions", body=body | given, cast_to=object)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("gpt-5.5", {"reasoning_effort": "none"}),
        ("gpt-5.4", {}),
        ("gpt-5", {"reasoning_effort": "low"}),
        ("gpt-4o", {"temperature": 0.2}),
    ],
)
async def test_chat_completions_with_tools_still_serve_the_other_models(
    client: AsyncOpenAI, model: str, given: dict[str, Any]
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = {"model": model, "messages": [{"role": "user", "content": "f"}], "tools": [tool]}

    answer: Any = await client.post("/chat/completions", body=body | given, cast_to=object)

    assert answer["choices"][0]["finish_reason"] == "tool_calls"


async def test_both_forms_share_the_providers_limits() -> None:
    limit: Any = [{"provider": "openai", "rpm": 60, "burst": 2}]
    async with Simulator(SimulatorConfig()) as sim, openai_sdk(sim.openai_base_url) as client:
        sim.configure(limits=limit)
        chat = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}]
        )
        response = await client.responses.with_raw_response.create(model=MODEL, input="Hello")
        with pytest.raises(openai.RateLimitError, match="requests per min") as refused:
            await ask(client)

    left = [each.headers["x-ratelimit-remaining-requests"] for each in (chat, response)]
    assert left == ["1", "0"]
    assert "retry-after" in refused.value.response.headers


async def test_a_tier_without_capacity_says_so(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="Resource Unavailable") as refused:
        await ask(
            client, input="Go [[sim:status=429,code=resource_unavailable]]", service_tier="flex"
        )

    assert refused.value.code == "resource_unavailable"


async def test_a_response_that_fails_in_the_middle_has_the_usage_until_then(
    sim: Simulator, client: AsyncOpenAI
) -> None:
    stream = await client.responses.create(
        model=MODEL, input="Go [[sim:stream_error,output_tokens=300]]", stream=True
    )

    *_, last = [event async for event in stream]

    (record,) = sim.ledger()
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == record.output_tokens > 100
    assert not record.finished

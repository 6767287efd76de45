import json

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from app.simulator import Simulator, SimulatorConfig

pytestmark = pytest.mark.anyio

MODEL = "gpt-4o"
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "lookup_vendor",
        "parameters": {
            "type": "object",
            "properties": {"vendor": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["vendor", "limit"],
        },
    },
}
QUESTION = 'What does the vendor "Acme Supplies" owe us, at most 40 rows?'


@pytest.fixture
def client(openai_client: AsyncOpenAI) -> AsyncOpenAI:
    return openai_client


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


async def test_a_completion_has_text_and_the_usage_that_the_ledger_has(
    sim: Simulator, client: AsyncOpenAI
) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=user("Tell me about lighthouses [[sim:cached_tokens=5]]")
    )

    (record,) = sim.ledger()
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        record.input_tokens,
        record.output_tokens,
    )
    assert usage.prompt_tokens_details.cached_tokens == record.cached_tokens == 5
    assert answer.choices[0].finish_reason == "stop"
    assert answer._request_id == record.request_id
    assert (record.status, record.finished, record.key_sent) == (200, True, True)


async def test_a_stream_gives_the_same_text_and_usage_as_the_plain_answer(
    sim: Simulator, client: AsyncOpenAI
) -> None:
    messages = user("Write a report on revenue [[sim:reasoning_tokens=9]]")
    plain = await client.chat.completions.create(model=MODEL, messages=messages)

    stream = await client.chat.completions.create(
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-2].choices[0].finish_reason == "stop"
    first, second = sim.ledger()
    assert (first.output_tokens, second.streamed) == (second.output_tokens, True)


async def test_a_stream_without_include_usage_has_none(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=user("Hello"), stream=True)

    assert [chunk async for chunk in stream if chunk.usage is not None] == []


async def test_a_tool_loop_ends_with_the_tools_result_in_the_text(client: AsyncOpenAI) -> None:
    messages = user(QUESTION)
    first = await client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    message = first.choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"

    messages += [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": call.function.arguments,
                    },
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "EUR 99.10 open"},
    ]
    second = await client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])

    assert json.loads(call.function.arguments) == {"vendor": "Acme Supplies", "limit": 40}
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert "EUR 99.10 open" in (second.choices[0].message.content or "")
    assert second.choices[0].finish_reason == "stop"


async def test_streamed_tool_arguments_come_in_pieces_and_make_the_same_call(
    client: AsyncOpenAI,
) -> None:
    plain = await client.chat.completions.create(model=MODEL, messages=user(QUESTION), tools=[TOOL])
    stream = await client.chat.completions.create(
        model=MODEL, messages=user(QUESTION), tools=[TOOL], stream=True
    )
    deltas = [
        call
        async for chunk in stream
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
    ]

    (expected,) = plain.choices[0].message.tool_calls or []
    assert expected.type == "function"
    functions = [delta.function for delta in deltas if delta.function is not None]
    assert deltas[0].id == expected.id
    assert functions[0].name == expected.function.name
    assert len(functions) > 2
    assert "".join(item.arguments or "" for item in functions) == expected.function.arguments


async def test_max_tokens_cuts_the_answer(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=user("Tell me about lighthouses"), max_completion_tokens=6
    )

    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (6, "length")


async def test_json_mode_gives_json(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=user("Judge this"), response_format={"type": "json_object"}
    )

    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
async def test_every_error_status_is_the_sdks_exception(
    sim: Simulator, client: AsyncOpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        await client.chat.completions.create(
            model=MODEL, messages=user(f"Go [[sim:status={status},retry_after=1.5]]")
        )

    (record,) = sim.ledger()
    headers = raised.value.response.headers
    assert (raised.value.status_code, record.status) == (status, status)
    assert raised.value.request_id == record.request_id
    assert raised.value.type
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1500")
    assert (record.fault, record.output_tokens) == (f"status={status}", 0)


async def test_a_spent_quota_says_so(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        await client.chat.completions.create(
            model=MODEL, messages=user("Go [[sim:status=429,code=insufficient_quota]]")
        )

    assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
    assert "retry-after" not in raised.value.response.headers


async def test_an_unknown_model_is_not_found(sim: Simulator, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt5-typo") as raised:
        await client.chat.completions.create(model="gpt5-typo", messages=user("Hello"))

    assert raised.value.code == "model_not_found"
    assert [(record.model, record.status) for record in sim.ledger()] == [("gpt5-typo", 404)]


@pytest.mark.parametrize("body", [{"messages": []}, {"max_tokens": 0}, {"n": 2}])
async def test_a_wrong_request_is_refused(client: AsyncOpenAI, body: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model=MODEL, messages=user("Hello"), extra_body=body)


async def test_an_invalid_or_missing_key_is_refused(sim: Simulator, client: AsyncOpenAI) -> None:
    sim.configure(invalid_keys=["sk-wrong"])

    for key in ("sk-wrong", ""):
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(
                model=MODEL,
                messages=user("Hello"),
                extra_headers={"Authorization": f"Bearer {key}"},
            )

    assert [record.key_sent for record in sim.ledger()] == [True, False]


async def test_the_models_are_listed(client: AsyncOpenAI) -> None:
    models = [model.id async for model in client.models.list()]

    assert MODEL in models


async def test_a_fixed_size_and_a_cached_share_hold_for_every_request() -> None:
    config = SimulatorConfig(output_tokens=120, cached_share=0.5)
    async with (
        Simulator(config) as sim,
        AsyncOpenAI(
            base_url=sim.openai_base_url,
            api_key="sk-test",
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),
        ) as client,
    ):
        answer = await client.chat.completions.create(model=MODEL, messages=user("x" * 400))

    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (100, 120)
    assert answer.usage.prompt_tokens_details.cached_tokens == 50

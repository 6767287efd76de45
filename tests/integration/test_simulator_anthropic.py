import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam, ToolParam

from app.simulator import Simulator

pytestmark = pytest.mark.anyio

MODEL = "claude-sonnet-5"
TOOL: ToolParam = {
    "name": "lookup_vendor",
    "input_schema": {
        "type": "object",
        "properties": {"vendor": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["vendor", "limit"],
    },
}
QUESTION = 'What does the vendor "Acme Supplies" owe us, at most 40 rows?'


@pytest.fixture
def client(anthropic_client: AsyncAnthropic) -> AsyncAnthropic:
    return anthropic_client


def user(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


async def test_a_message_has_text_and_the_usage_that_the_ledger_has(
    sim: Simulator, client: AsyncAnthropic
) -> None:
    text = "Tell me about lighthouses [[sim:cached_tokens=5,cache_write_tokens=3]]"

    message = await client.messages.create(
        model=MODEL, max_tokens=500, system="Be brief.", messages=user(text)
    )

    (record,) = sim.ledger()
    usage = message.usage
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (5, 3)
    assert usage.input_tokens + 5 + 3 == record.input_tokens
    assert usage.output_tokens == record.output_tokens
    assert (record.cached_tokens, record.cache_write_tokens) == (5, 3)
    assert message.stop_reason == "end_turn"
    assert message._request_id == record.request_id
    assert message.content[0].type == "text"


async def test_a_stream_gives_the_same_message_as_the_plain_answer(
    sim: Simulator, client: AsyncAnthropic
) -> None:
    messages = user("Write a report on revenue")
    plain = await client.messages.create(model=MODEL, max_tokens=500, messages=messages)

    async with client.messages.stream(model=MODEL, max_tokens=500, messages=messages) as stream:
        events = [event.type async for event in stream]
        final = await stream.get_final_message()

    assert final.content[0].type == "text"
    assert plain.content[0].type == "text"
    assert final.content[0].text == plain.content[0].text
    assert final.usage.input_tokens == plain.usage.input_tokens
    assert final.usage.output_tokens == plain.usage.output_tokens
    assert final.stop_reason == "end_turn"
    assert (events[0], events[-1]) == ("message_start", "message_stop")
    assert events.count("content_block_delta") > 2
    assert [record.streamed for record in sim.ledger()] == [False, True]


async def test_a_tool_loop_ends_with_the_tools_result_in_the_text(client: AsyncAnthropic) -> None:
    messages = user(QUESTION)
    first = await client.messages.create(
        model=MODEL, max_tokens=500, messages=messages, tools=[TOOL]
    )
    (call,) = first.content
    assert call.type == "tool_use"

    messages += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": "EUR 99.10 open"},
                {"type": "text", "text": "Go on."},
            ],
        },
    ]
    second = await client.messages.create(
        model=MODEL, max_tokens=500, messages=messages, tools=[TOOL]
    )

    assert call.input == {"vendor": "Acme Supplies", "limit": 40}
    assert first.stop_reason == "tool_use"
    assert second.content[0].type == "text"
    assert "EUR 99.10 open" in second.content[0].text
    assert second.stop_reason == "end_turn"


async def test_streamed_tool_arguments_come_in_pieces_and_make_the_same_call(
    client: AsyncAnthropic,
) -> None:
    plain = await client.messages.create(
        model=MODEL, max_tokens=500, messages=user(QUESTION), tools=[TOOL]
    )

    async with client.messages.stream(
        model=MODEL, max_tokens=500, messages=user(QUESTION), tools=[TOOL]
    ) as stream:
        pieces = [event.partial_json async for event in stream if event.type == "input_json"]
        final = await stream.get_final_message()

    assert final.content[0].type == "tool_use"
    assert plain.content[0].type == "tool_use"
    assert final.content[0].input == plain.content[0].input
    assert final.content[0].id == plain.content[0].id
    assert final.usage.output_tokens == plain.usage.output_tokens
    assert len(pieces) > 1


async def test_max_tokens_cuts_the_answer(client: AsyncAnthropic) -> None:
    message = await client.messages.create(
        model=MODEL, max_tokens=6, messages=user("Tell me about lighthouses")
    )

    assert (message.usage.output_tokens, message.stop_reason) == (6, "max_tokens")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (409, anthropic.ConflictError, "conflict_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_every_error_status_is_the_sdks_exception(
    sim: Simulator,
    client: AsyncAnthropic,
    status: int,
    error: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    with pytest.raises(error) as raised:
        await client.messages.create(
            model=MODEL,
            max_tokens=500,
            messages=user(f"Go [[sim:status={status},retry_after=1.5]]"),
        )

    (record,) = sim.ledger()
    assert (raised.value.status_code, raised.value.type) == (status, kind)
    assert raised.value.request_id == record.request_id
    assert raised.value.response.headers["retry-after"] == "2"
    assert record.status == status


async def test_a_spent_limit_says_so(client: AsyncAnthropic) -> None:
    text = "Go [[sim:status=429,code=enforced_spend_limit_reached]]"

    with pytest.raises(anthropic.RateLimitError) as raised:
        await client.messages.create(model=MODEL, max_tokens=500, messages=user(text))

    assert raised.value.error_code == "enforced_spend_limit_reached"
    assert "retry-after" not in raised.value.response.headers


async def test_an_unknown_model_is_not_found(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="claud-typo"):
        await client.messages.create(model="claud-typo", max_tokens=9, messages=user("Hello"))


async def test_an_invalid_or_missing_key_is_refused(sim: Simulator, client: AsyncAnthropic) -> None:
    sim.configure(invalid_keys=["wrong"])

    for key in ("wrong", ""):
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(
                model=MODEL,
                max_tokens=9,
                messages=user("Hello"),
                extra_headers={"Authorization": f"Bearer {key}"},
            )

    assert [record.key_sent for record in sim.ledger()] == [True, False]


async def test_the_models_are_listed(client: AsyncAnthropic) -> None:
    models = [model.id async for model in client.models.list()]

    assert MODEL in models

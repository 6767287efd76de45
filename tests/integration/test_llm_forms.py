"""The two request forms of OpenAI behind one client: the choice, the connections, the timeouts."""

from typing import Any

import pytest

from app.errors import BadRequest, ConnectionFailed
from app.llm.base import Message
from app.llm.openai import FLEX_TIMEOUT_S, OpenAIClient
from app.simulator import Simulator
from tests.support.llm_clients import KEY

pytestmark = pytest.mark.anyio

TOOLS = [
    {
        "name": name,
        "description": "Looks something up.",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    }
    for name in ("get_weather", "get_time")
]
QUESTION: Message = {"role": "user", "content": "get_weather, then get_time"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-6.1-sol", "gpt-6-astra"])
async def test_tools_of_the_newest_models_run_without_any_setting(
    sim: Simulator, model: str, stream: bool
) -> None:
    client = OpenAIClient(KEY, base_url=sim.openai_base_url)

    first = await client.complete_with_tools([QUESTION], model, TOOLS, stream=stream)
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "14 degrees"}
        for call in first.tool_calls or ()
    ]
    second = await client.complete_with_tools(
        [QUESTION, first.as_message(), *results], model, TOOLS, stream=stream
    )
    without = await client.complete("Hello.", model, stream=stream)
    await client.close()

    assert [call.name for call in first.tool_calls or ()] == ["get_weather", "get_time"]
    assert "14 degrees" in second.content
    assert without.content
    paths = [record.endpoint for record in sim.ledger()]
    assert paths == ["/v1/responses", "/v1/responses", "/v1/chat/completions"]


async def test_both_forms_share_one_connection_pool(sim: Simulator) -> None:
    client = OpenAIClient(KEY, base_url=sim.openai_base_url)

    for api in ("chat", "responses", "chat", "responses"):
        await client.complete("Hello.", "gpt-4o-mini", api=api)

    inner: Any = client._connection.open()
    assert len(inner._client._transport.client.connector._conns) <= 1
    await client.close()
    await client.complete("Hello.", "gpt-4o-mini", api="responses")
    await client.close()


async def test_what_chat_cannot_serve_is_refused_before_it_is_sent(sim: Simulator) -> None:
    client = OpenAIClient(KEY, base_url=sim.openai_base_url, api="chat")

    with pytest.raises(BadRequest, match="only in the Responses API") as refused:
        await client.complete("get_weather", "gpt-6-sol", tools=TOOLS)
    await client.close()

    assert not refused.value.reached
    assert not sim.ledger()


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_flexible_tier_has_the_time_that_its_provider_advises(
    sim: Simulator, api: str
) -> None:
    client = OpenAIClient(KEY, base_url=sim.openai_base_url, timeout_s=0.2, api=api)
    slow = "Slowly. [[sim:latency=0.5]]"

    answer = await client.complete(slow, "gpt-5.4", service_tier="flex")
    with pytest.raises(ConnectionFailed, match=r"within 0\.2 s"):
        await client.complete(slow, "gpt-5.4")
    with pytest.raises(ConnectionFailed, match=r"within 0\.1 s"):
        await client.complete_with_tools(
            [{"role": "user", "content": slow}], "gpt-5.4", service_tier="flex", timeout_s=0.1
        )
    await client.close()

    assert answer.metadata["service_tier"] == "flex"
    assert FLEX_TIMEOUT_S == 900

"""The simulator counts prompts as the providers' endpoints do: free, and with limits and faults."""

import asyncio
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from app.simulator import RateLimit, Simulator, run_in_process
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

TEXT = "How is the weather? " * 50
FAULT: dict[str, Any] = {"model": "token_count"}
LIMIT = RateLimit(provider="openai", model="token_count", requests_per_minute=2)


async def by_openai(client: AsyncOpenAI, model: str = "gpt-5.4", **given: Any) -> int:
    answer = await client.responses.input_tokens.count(
        model=model, input=TEXT, instructions="Be brief.", **given
    )
    return answer.input_tokens


async def by_anthropic(client: AsyncAnthropic, **given: Any) -> int:
    answer = await client.messages.count_tokens(
        model="claude-sonnet-5",
        system="Be brief.",
        messages=[{"role": "user", "content": TEXT}],
        **given,
    )
    return answer.input_tokens


async def test_a_count_is_what_the_call_is_billed_and_stands_in_no_total(
    sim: Simulator, openai_client: AsyncOpenAI, anthropic_client: AsyncAnthropic
) -> None:
    counts = await by_openai(openai_client), await by_anthropic(anthropic_client)
    assert sim.ledger() == []
    assert sim.summary()["requests"] == 0

    response = await openai_client.responses.create(
        model="gpt-5.4", input=TEXT, instructions="Be brief.", max_output_tokens=50
    )
    message = await anthropic_client.messages.create(
        model="claude-sonnet-5",
        system="Be brief.",
        messages=[{"role": "user", "content": TEXT}],
        max_tokens=50,
    )

    assert response.usage is not None
    assert counts == (response.usage.input_tokens, message.usage.input_tokens)
    found = [(each.endpoint, each.model, each.status, each.input_tokens) for each in sim.counts()]
    assert found == [
        ("/v1/responses/input_tokens", "gpt-5.4", 200, 0),
        ("/v1/messages/count_tokens", "claude-sonnet-5", 200, 0),
    ]
    sim.reset()
    assert sim.counts() == []


async def test_what_the_endpoints_do_not_take_is_refused(
    openai_client: AsyncOpenAI, anthropic_client: AsyncAnthropic
) -> None:
    with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'max_output_tokens'"):
        await by_openai(openai_client, extra_body={"max_output_tokens": 50})
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Extra inputs"):
        await by_anthropic(anthropic_client, extra_body={"max_tokens": 50})
    with pytest.raises(openai.NotFoundError):
        await by_openai(openai_client, "no-such-model")


async def test_counts_have_limits_of_their_own(sim: Simulator, openai_client: AsyncOpenAI) -> None:
    of_calls = RateLimit(provider="openai", model="*", requests_per_minute=1)
    sim.configure(limits=[{"provider": "openai", "model": "*", "rpm": 1}])
    for _ in range(3):  # the limit of all models is no limit of counts
        await by_openai(openai_client)
    assert sim.config.limits == (of_calls,)

    sim.configure(limits=[{"provider": "openai", "model": "token_count", "rpm": 2}])
    assert sim.config.limits == (LIMIT,)
    for _ in range(2):
        await by_openai(openai_client)
    with pytest.raises(openai.RateLimitError) as raised:
        await by_openai(openai_client)

    assert 25 < float(raised.value.response.headers["retry-after"]) <= 30
    for _ in range(3):
        await openai_client.responses.create(model="gpt-5.4", input="x", max_output_tokens=50)


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"kind": "status", "status": 503}, 503), ({"kind": "error_in_200", "status": 429}, 200)],
)
async def test_counts_fail_on_demand_and_calls_do_not(
    sim: Simulator, openai_client: AsyncOpenAI, fault: dict[str, Any], status: int
) -> None:
    sim.configure(faults=[FAULT | fault])

    raw = openai_client.responses.input_tokens.with_raw_response
    if status == 200:
        answer = await raw.count(model="gpt-5.4", input=TEXT)
        assert "input_tokens" not in answer.text
    else:
        with pytest.raises(openai.APIStatusError) as raised:
            await raw.count(model="gpt-5.4", input=TEXT)
        assert raised.value.status_code == status
    await openai_client.responses.create(model="gpt-5.4", input=TEXT, max_output_tokens=50)

    assert [each.status for each in sim.counts()] == [status]
    assert [each.fault for each in sim.ledger()] == [None]


async def test_a_fault_of_all_models_and_a_marker_are_not_for_counts(
    sim: Simulator, openai_client: AsyncOpenAI
) -> None:
    sim.configure(faults=[{"kind": "status", "status": 500}])

    answer = await openai_client.responses.input_tokens.count(
        model="gpt-5.4", input="[[sim:status=400]]"
    )

    assert answer.input_tokens == 5


async def test_a_count_that_hangs_ends_when_its_client_leaves(
    sim: Simulator, anthropic_client: AsyncAnthropic
) -> None:
    sim.configure(faults=[FAULT | {"kind": "hang"}])

    async def left() -> bool:
        return sim.counts()[0].status == 499

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await by_anthropic(anthropic_client)

    await wait_until_async(left, what="the client has left")


def test_a_process_tells_its_counts() -> None:
    with run_in_process() as simulator:
        client = openai.OpenAI(base_url=simulator.openai_base_url, api_key="any", max_retries=0)
        with client:
            client.responses.input_tokens.count(model="gpt-5.4", input=TEXT)

        assert [record["status"] for record in simulator.counts()] == [200]
        assert simulator.ledger() == []

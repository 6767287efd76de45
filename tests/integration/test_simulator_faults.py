import asyncio
from collections.abc import Callable
from time import monotonic

import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from app.simulator import Fault, FaultRule, Record, Simulator, SimulatorConfig
from tests.support.pace import at_this_pace, scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


async def ask(client: AsyncOpenAI, text: str) -> str:
    answer = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": text}]
    )
    return answer.choices[0].message.content or ""


async def read_stream(client: AsyncOpenAI, text: str, received: list[str]) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": text}], stream=True
    )
    async with stream:
        async for chunk in stream:
            received += [chunk.choices[0].delta.content or ""]


async def read_messages(client: AsyncAnthropic, text: str) -> None:
    async with client.messages.stream(
        model="claude-sonnet-5", max_tokens=500, messages=[{"role": "user", "content": text}]
    ) as stream:
        await stream.until_done()


async def the_record(sim: Simulator, condition: Callable[[Record], bool]) -> Record:
    async def found() -> list[Record]:
        return [record for record in sim.ledger() if condition(record)]

    return (await wait_until_async(found, timeout_s=scaled(5)))[0]


async def test_a_client_that_leaves_is_recorded_as_unfinished(
    sim: Simulator, openai_client: AsyncOpenAI
) -> None:
    task = asyncio.create_task(ask(openai_client, "Slow one [[sim:latency=30]]"))
    waiting = await the_record(sim, lambda record: bool(record.input_tokens))
    in_flight = sim.summary()["in_flight"]

    task.cancel()
    record = await the_record(sim, lambda record: record.status is not None)

    assert (in_flight, sim.summary()["in_flight"]) == (1, 0)
    assert record is waiting
    assert (record.status, record.finished, record.output_tokens) == (499, False, 0)
    assert record.input_tokens > 0
    assert sim.summary()["disconnected"] == 1


async def test_a_stream_that_is_left_counts_the_tokens_sent_so_far(
    sim: Simulator, openai_client: AsyncOpenAI
) -> None:
    text = "Long one [[sim:latency=2,output_tokens=200]]"
    received: list[str] = []
    task = asyncio.create_task(read_stream(openai_client, text, received))
    await the_record(sim, lambda record: record.output_tokens > 12)

    task.cancel()
    record = await the_record(sim, lambda record: record.status is not None)

    assert (record.status, record.finished, record.streamed) == (200, False, True)
    assert 12 < record.output_tokens < 200


async def test_a_stream_takes_its_time_and_starts_after_its_first_token(
    openai_client: AsyncOpenAI,
) -> None:
    text = "Long one [[sim:latency=0.4,ttft=0.2,output_tokens=100]]"
    started_s = monotonic()
    stream = await openai_client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": text}], stream=True
    )
    arrivals_s = [monotonic() - started_s async for _ in stream]

    assert 0.19 <= arrivals_s[0] < at_this_pace(5)
    assert 0.39 <= arrivals_s[-1] < at_this_pace(5)
    assert len({round(arrival_s, 2) for arrival_s in arrivals_s}) > 5


async def test_latency_delays_the_plain_answer(sim: Simulator, openai_client: AsyncOpenAI) -> None:
    sim.configure(latency_s=0.2, jitter_s=0.05)

    await ask(openai_client, "Hello")

    assert 0.2 <= sim.ledger()[0].seconds < at_this_pace(5)


async def test_a_hang_ends_when_the_client_gives_up(
    sim: Simulator, openai_client: AsyncOpenAI
) -> None:
    with pytest.raises(openai.APITimeoutError):
        await ask(openai_client.with_options(timeout=0.1), "Go [[sim:hang]]")

    record = await the_record(sim, lambda record: record.status is not None)
    assert (record.status, record.fault, record.finished) == (499, "hang", False)


async def test_a_dropped_connection_is_a_connection_error(
    sim: Simulator, openai_client: AsyncOpenAI, anthropic_client: AsyncAnthropic
) -> None:
    with pytest.raises(openai.APIConnectionError):
        await ask(openai_client, "Go [[sim:drop]]")
    with pytest.raises(anthropic.APIConnectionError):
        await read_messages(anthropic_client, "Go [[sim:drop]]")

    assert [(record.status, record.finished) for record in sim.ledger()] == [(0, False)] * 2
    assert sim.summary()["disconnected"] == 0
    assert await ask(openai_client, "Still there?")


async def test_a_cut_stream_breaks_off_in_the_middle(
    sim: Simulator, openai_client: AsyncOpenAI, anthropic_client: AsyncAnthropic
) -> None:
    received: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        await read_stream(openai_client, "Go on at length [[sim:cut_stream]]", received)
    with pytest.raises((anthropic.APIConnectionError, httpx2.TransportError)):
        await read_messages(anthropic_client, "Go on at length [[sim:cut_stream]]")

    first, second = sim.ledger()
    assert "".join(received)
    assert not first.finished
    assert first.output_tokens > 0
    assert (second.status, second.finished) == (200, False)


async def test_a_cut_plain_answer_is_a_connection_error(
    sim: Simulator, openai_client: AsyncOpenAI
) -> None:
    with pytest.raises(openai.APIConnectionError):
        await ask(openai_client, "Go on at length [[sim:cut_stream]]")

    assert [record.finished for record in sim.ledger()] == [False]


async def test_garbage_cannot_be_read(
    openai_client: AsyncOpenAI, anthropic_client: AsyncAnthropic
) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Invalid"):
        await ask(openai_client, "Go [[sim:garbage]]")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Invalid"):
        await read_stream(openai_client, "Go [[sim:garbage]]", [])
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Invalid"):
        await read_messages(anthropic_client, "Go [[sim:garbage]]")


async def test_an_error_may_come_in_the_middle_of_a_stream(
    openai_client: AsyncOpenAI, anthropic_client: AsyncAnthropic
) -> None:
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        await read_messages(anthropic_client, "Go [[sim:stream_error,status=529]]")
    with pytest.raises(openai.APIError) as failed:
        await read_stream(openai_client, "Go [[sim:stream_error]]", [])
    with pytest.raises(openai.InternalServerError):
        await ask(openai_client, "Go [[sim:stream_error]]")

    assert overloaded.value.type == "overloaded_error"
    assert failed.value.type == "server_error"


async def test_times_counts_the_exact_prompt(openai_client: AsyncOpenAI) -> None:
    text = "Go [[sim:status=503,times=2]]"
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await ask(openai_client, text)

    assert await ask(openai_client, text)
    with pytest.raises(openai.InternalServerError):
        await ask(openai_client, f"Another {text}")


async def test_an_unknown_marker_is_told(openai_client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="explode"):
        await ask(openai_client, "Go [[sim:explode]]")


async def test_a_reply_can_be_dictated(openai_client: AsyncOpenAI) -> None:
    assert await ask(openai_client, "Judge [[sim:reply=positive]]") == "positive"


async def test_configured_faults_strike_and_slow_ones_only_wait() -> None:
    rules = (
        FaultRule(fault=Fault(kind="status", status=503), provider="openai", first=1),
        FaultRule(fault=Fault(kind="slow", delay_s=0.15), prompt_contains="patience"),
    )
    http = openai.DefaultAioHttpClient()
    async with (
        Simulator(SimulatorConfig(faults=rules)) as sim,
        AsyncOpenAI(
            base_url=sim.openai_base_url, api_key="k", max_retries=0, http_client=http
        ) as client,
    ):
        with pytest.raises(openai.InternalServerError):
            await ask(client, "Hello")
        await ask(client, "Hello")
        await ask(client, "Have patience")

    assert [record.fault for record in sim.ledger()] == ["status=503", None, "slow"]
    assert sim.ledger()[2].seconds >= 0.15
    assert sim.summary()["by_fault"] == {"status=503": 1, "slow": 1}

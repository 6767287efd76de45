from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from app.simulator import RateLimit, Simulator, SimulatorConfig

pytestmark = pytest.mark.anyio

LIMITS = (
    RateLimit(provider="openai", model="gpt-4o*", requests_per_minute=2, tokens_per_minute=4000),
    RateLimit(provider="openai", model="o3", tokens_per_minute=1000, enforcement="window"),
    RateLimit(
        provider="anthropic",
        requests_per_minute=60,
        burst=2,
        input_tokens_per_minute=30_000,
        output_tokens_per_minute=8_000,
    ),
)


@pytest.fixture
async def sim(anyio_backend: str) -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig(limits=LIMITS)) as simulator:
        yield simulator


async def ask(client: AsyncOpenAI, model: str, max_tokens: int = 100) -> dict[str, str]:
    answer = await client.chat.completions.with_raw_response.create(
        model=model,
        max_completion_tokens=max_tokens,
        messages=[{"role": "user", "content": "Hello"}],
    )
    return dict(answer.headers)


async def test_openais_headers_show_what_is_left(openai_client: AsyncOpenAI) -> None:
    headers = await ask(openai_client, "gpt-4o")

    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"] == "30s"
    assert headers["x-ratelimit-limit-tokens"] == "4000"
    assert headers["x-ratelimit-remaining-tokens"] == "3900"
    assert headers["x-ratelimit-reset-tokens"] == "1.5s"


async def test_a_request_over_the_limit_is_told_when_to_come_back(
    sim: Simulator, openai_client: AsyncOpenAI
) -> None:
    await ask(openai_client, "gpt-4o")
    await ask(openai_client, "gpt-4o-mini")

    with pytest.raises(openai.RateLimitError) as raised:
        await ask(openai_client, "gpt-4o")

    headers = raised.value.response.headers
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "requests")
    assert "requests per min (RPM): Limit 2, Used 2, Requested 1" in raised.value.message
    assert headers["retry-after"] == "30"
    assert 29_000 < int(headers["retry-after-ms"]) <= 30_000
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert sim.summary()["by_status"] == {"200": 2, "429": 1}


async def test_openai_reserves_max_tokens_and_a_request_too_large_never_fits(
    openai_client: AsyncOpenAI,
) -> None:
    await ask(openai_client, "o3", max_tokens=600)

    with pytest.raises(openai.RateLimitError) as waiting:
        await ask(openai_client, "o3", max_tokens=600)
    with pytest.raises(openai.RateLimitError, match="Request too large") as never:
        await ask(openai_client, "o3", max_tokens=1001)

    assert waiting.value.type == "tokens"
    assert "retry-after" in waiting.value.response.headers
    assert "retry-after" not in never.value.response.headers


async def test_a_model_without_a_limit_has_no_limit_headers(openai_client: AsyncOpenAI) -> None:
    headers = await ask(openai_client, "gpt-4.1")

    assert not [name for name in headers if name.startswith("x-ratelimit")]


async def test_anthropics_headers_show_every_limit(anthropic_client: AsyncAnthropic) -> None:
    before = datetime.now(UTC)
    answer = await anthropic_client.messages.with_raw_response.create(
        model="claude-sonnet-5",
        max_tokens=500,
        messages=[{"role": "user", "content": "x" * 40_000}],
    )

    headers = answer.headers
    assert headers["anthropic-ratelimit-requests-limit"] == "60"
    assert headers["anthropic-ratelimit-requests-remaining"] == "1"
    assert headers["anthropic-ratelimit-input-tokens-limit"] == "30000"
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "20000"
    assert headers["anthropic-ratelimit-output-tokens-remaining"] == "8000"
    assert headers["anthropic-ratelimit-tokens-limit"] == "30000"
    assert headers["anthropic-ratelimit-tokens-remaining"] == "20000"
    reset = datetime.fromisoformat(headers["anthropic-ratelimit-input-tokens-reset"])
    assert timedelta(seconds=19) < reset - before < timedelta(seconds=25)


async def test_sixty_a_minute_may_be_one_per_second(
    sim: Simulator, anthropic_client: AsyncAnthropic
) -> None:
    async def hello() -> None:
        await anthropic_client.messages.create(
            model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )

    await hello()
    await hello()
    with pytest.raises(anthropic.RateLimitError) as raised:
        await hello()

    assert raised.value.type == "rate_limit_error"
    assert "60 requests per minute" in str(raised.value)
    assert raised.value.response.headers["retry-after"] == "1"


async def test_new_limits_hold_at_once(sim: Simulator, openai_client: AsyncOpenAI) -> None:
    await ask(openai_client, "gpt-4o")

    sim.configure(limits=[{"provider": "openai", "rpm": 1}])
    await ask(openai_client, "gpt-4o")

    with pytest.raises(openai.RateLimitError):
        await ask(openai_client, "o3")

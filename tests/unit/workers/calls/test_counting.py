"""Counts of long prompts: what is counted, how long a call waits for it, and what is believed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.configuration.sections import UNLIMITED
from app.costs.pricing import Pricing
from app.domain.policies import RateLimitConfig
from app.errors import ConnectionFailed, ProviderError, RateLimited
from app.llm.base import LLMClient, LLMResponse, Message
from app.llm.clients import Clients
from app.planning.calls import CallPlan, CallPlanner
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.limiter import ClusterLimiter
from tests.support.jobs import agent_of, job_of
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async
from workers.calls import counting
from workers.calls.base import CallRequest
from workers.calls.counting import COUNT_FROM_TOKENS, TokenCounter
from workers.inflight import Phase

pytestmark = pytest.mark.anyio

MODEL = "gpt-4o-mini"
PLANNER = CallPlanner(Pricing(), default_max_tokens=100)
COUNTED = 20_000
ONE_AT_A_TIME = replace(UNLIMITED, concurrent_requests=1)


class CountingClient(LLMClient):
    """A client that only counts: each request takes the next of the given results."""

    def __init__(self, *results: int | ProviderError | asyncio.Event | None) -> None:
        self.asked = 0
        self._results = list(results)

    async def count_tokens(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> int | None:
        self.asked += 1
        result = self._results.pop(0) if self._results else COUNTED
        if isinstance(result, asyncio.Event):
            await result.wait()
            return COUNTED
        if isinstance(result, ProviderError):
            raise result
        return result

    async def complete_with_tools(self, *_: Any, **__: Any) -> LLMResponse:
        raise NotImplementedError

    def get_model_info(self, model: str) -> dict[str, Any]:
        return {"model": model}

    async def close(self) -> None:
        """Close nothing."""


Make = Callable[..., tuple[TokenCounter, ClusterLimiter]]


@pytest.fixture
async def make(anyio_backend: str) -> AsyncIterator[Make]:
    limiters = []

    def made(
        client: CountingClient, limits: RateLimitConfig = UNLIMITED
    ) -> tuple[TokenCounter, ClusterLimiter]:
        limiter = ClusterLimiter(
            MemoryBackend(), lambda provider, model: (f"{provider}/{model}", limits)
        )
        limiters.append(limiter)
        return TokenCounter(clients=Clients({"openai": lambda: client}), limiter=limiter), limiter

    yield made
    for limiter in limiters:
        await limiter.close()


def call(text: str = "x" * COUNT_FROM_TOKENS) -> tuple[CallRequest, CallPlan]:
    agent = agent_of(MODEL)
    messages: list[Message] = [{"role": "user", "content": text}]
    return CallRequest(job=job_of(agent), agent=agent, messages=messages), PLANNER.plan(
        agent, messages
    )


async def test_only_long_prompts_are_counted_and_each_of_them_once(make: Make) -> None:
    client = CountingClient()
    counter, _ = make(client)

    assert await counter.count(*call("x" * (COUNT_FROM_TOKENS - 100))) is None
    assert client.asked == 0
    for _ in range(2):
        assert await counter.count(*call()) == COUNTED
    assert client.asked == 1
    assert await counter.count(*call("y" * COUNT_FROM_TOKENS)) == COUNTED
    assert client.asked == 2


async def test_a_count_that_fails_is_not_remembered_and_not_raised(make: Make) -> None:
    failure = ConnectionFailed("no answer", provider="openai")
    counter, _ = make(client := CountingClient(failure, None))

    assert [await counter.count(*call()) for _ in range(3)] == [None, None, COUNTED]
    assert client.asked == 3


async def test_a_429_pauses_the_counts_and_only_the_second_is_given_up(make: Make) -> None:
    refused = [RateLimited("slow down", provider="openai", status=429) for _ in range(3)]
    counter, limiter = make(client := CountingClient(*refused))

    assert await counter.count(*call()) is None

    assert client.asked == 2
    statistics = limiter.get_statistics()["buckets"]
    assert statistics.keys() == {"openai/token_count"}
    assert statistics["openai/token_count"]["throttled"] == 2


async def test_a_long_pause_is_not_waited_for(make: Make) -> None:
    refused = RateLimited("slow down", provider="openai", status=429, retry_after_s=3600.0)
    counter, _ = make(client := CountingClient(refused))

    async with asyncio.timeout(scaled(5)):
        assert await counter.count(*call()) is None
        assert await counter.count(*call()) is None
    assert client.asked == 1


async def test_a_call_does_not_wait_long_for_its_count(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MAX_WAIT_S", 0.1)
    counter, _ = make(CountingClient(asyncio.Event()), ONE_AT_A_TIME)
    request, plan = call()

    assert await counter.count(request, plan) is None

    assert "openai/token_count" in request.job.waits.notable_s
    monkeypatch.undo()
    assert await counter.count(request, plan) == COUNTED  # the place is free again


async def test_a_cancelled_attempt_stops_its_count_and_gives_its_place_back(make: Make) -> None:
    client = CountingClient(asyncio.Event())
    counter, _ = make(client, ONE_AT_A_TIME)
    request, plan = call()
    request.job.lease.enter(Phase.CALLING)
    count = asyncio.create_task(counter.count(request, plan))

    async def asked() -> bool:
        return client.asked == 1

    await wait_until_async(asked, what="the provider is asked")
    assert request.job.lease.phase is Phase.WAITING  # a pause or a drain may stop the attempt
    count.cancel()
    with pytest.raises(asyncio.CancelledError):
        await count

    async with asyncio.timeout(scaled(5)):
        assert await counter.count(request, plan) == COUNTED


@pytest.mark.parametrize("excess", [0, 1])
async def test_a_server_that_counts_too_little_is_not_believed_again(
    make: Make, excess: int
) -> None:
    counter, _ = make(client := CountingClient())
    request, plan = call()
    counted = await counter.count(request, plan)
    plan = PLANNER.plan(request.agent, request.messages, counted_tokens=counted)

    counter.check(request, plan, plan.bound_tokens + excess)

    later = await counter.count(*call("y" * COUNT_FROM_TOKENS))
    assert later == (None if excess else COUNTED)
    assert client.asked == 2 - excess


async def test_a_request_that_is_not_json_is_left_to_the_call(make: Make) -> None:
    counter, _ = make(client := CountingClient())
    request, plan = call()
    tools = [{"name": "t", "parameters": {"type": "object", "default": {1}}}]

    assert await counter.count(replace(request, tools=tools), plan) is None
    assert client.asked == 0

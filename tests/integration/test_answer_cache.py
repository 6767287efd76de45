"""Shared answers of several processes on a real Redis: one asks the provider, others wait."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from app import Agent, LLMResponse
from app.costs.pricing import Pricing
from app.domain.usage import Usage
from app.errors import Overloaded
from app.events.signals import Signals
from app.llm.base import ToolCall
from app.llm.cache import MAX_BYTES, AnswerCache, Look, address_of
from app.storage.cluster_keys import ANSWERS, cluster_key
from app.storage.redis import connect_redis
from tests.support.database_cluster import Cluster
from tests.support.jobs import ID, job_of
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async
from workers.background import Background
from workers.calls.base import CallOutcome, CallRequest
from workers.calls.cache import CacheRing, _facts_of
from workers.jobs import Job

pytestmark = pytest.mark.anyio

LEASE_S = 1.5
KEY = b"of this cluster"
ANSWER = LLMResponse(
    content="blue",
    model="gpt-4o-2024-08-06",
    input_tokens=10,
    output_tokens=2,
    finish_reason="tool_calls",
    tool_calls=[ToolCall(id="call_1", name="paint", arguments='{"in": "blue"}')],
    usage=Usage(input_tokens=10, output_tokens=2),
    metadata={"original": {"by": "openai", "message": {"content": "blue", "reasoning": "hm"}}},
)


@dataclass
class Provider:
    """The provider behind the cache: it answers or fails on command."""

    asked: int = 0
    answers: list[asyncio.Future[LLMResponse]] = field(default_factory=list)

    async def call(self, request: CallRequest) -> CallOutcome:
        self.asked += 1
        future: asyncio.Future[LLMResponse] = asyncio.get_running_loop().create_future()
        self.answers.append(future)
        return CallOutcome(response=await future, call_id=ID)


@dataclass
class Process:
    redis: Redis
    signals: Signals
    ring: CacheRing
    background: Background

    def start(self, prompt: str = "Name a colour.") -> asyncio.Task[tuple[LLMResponse, Job]]:
        async def call() -> tuple[LLMResponse, Job]:
            request = asks(prompt)
            return (await self.ring.call(request)).response, request.job

        return asyncio.create_task(call())


def asks(prompt: str = "Name a colour.") -> CallRequest:
    agent = Agent(name="a", prompt_template="go", llm_config={"model": "gpt-4o"}, cache={"ttl": 60})
    messages = [{"role": "user", "content": prompt}]
    return CallRequest(job=job_of(agent), agent=agent, messages=messages)


@asynccontextmanager
async def processes(
    redis_url: str, provider: Provider, number: int = 2
) -> AsyncIterator[list[Process]]:
    made = []
    for _ in range(number):
        redis = connect_redis(redis_url)
        signals = Signals(redis)
        cache = AnswerCache(redis, key=KEY, lease_s=LEASE_S)
        background = Background()
        ring = CacheRing(
            provider, cache=cache, signals=signals, pricing=Pricing(), background=background
        )
        made.append(Process(redis, signals, ring, background))
    try:
        yield made
    finally:
        for process in made:
            await process.background.close(timeout_s=2.0)
            await process.signals.close()
            await process.redis.aclose()


async def asked(provider: Provider, times: int) -> None:
    async def so_often() -> bool:
        return provider.asked >= times

    await wait_until_async(so_often, what=f"the provider is asked {times} times")


async def test_one_asks_and_all_processes_have_the_answer(redis_url: str) -> None:
    provider = Provider()

    async with processes(redis_url, provider) as (first, second):
        calls = [process.start() for process in (first, second) for _ in range(20)]
        await asked(provider, 1)
        provider.answers[0].set_result(ANSWER)
        done = await asyncio.wait_for(asyncio.gather(*calls), scaled(5))
        again, _ = await second.start()

    assert provider.asked == 1
    entries = [job.settling.calls for _, job in done if job.settling.calls]
    assert len(entries) == 39
    assert {entry.kind for (entry,) in entries} == {"cached"}
    assert {entry.saved_usd for (entry,) in entries} == {Decimal("0.000045")}
    assert again.metadata == {"cached": True, "original": ANSWER.metadata["original"]}
    assert (again.content, again.tool_calls, again.usage) == (
        ANSWER.content,
        ANSWER.tool_calls,
        ANSWER.usage,
    )


async def test_a_process_that_dies_while_it_asks_holds_nobody_up(redis_url: str) -> None:
    provider = Provider()

    async with processes(redis_url, provider) as (_, second):
        redis = Redis.from_url(redis_url)
        dead = AnswerCache(redis, key=KEY, lease_s=LEASE_S)
        look = await dead.look(address_of(_facts_of(asks())), "the dead one")
        await redis.aclose()
        died_s = time.monotonic()
        call = second.start()
        await asked(provider, 1)
        waited_s = time.monotonic() - died_s
        provider.answers[0].set_result(ANSWER)
        answer, _ = await asyncio.wait_for(call, scaled(5))

    assert look is not None
    assert look.asked_by == "the dead one"
    assert waited_s > LEASE_S / 2
    assert answer.content == "blue"


async def test_one_who_asks_for_long_keeps_the_others_waiting(redis_url: str) -> None:
    provider = Provider()

    async with processes(redis_url, provider) as (first, second):
        leading = first.start()
        await asked(provider, 1)
        following = second.start()
        done, _ = await asyncio.wait([following], timeout=1.3 * LEASE_S)
        provider.answers[0].set_result(ANSWER)
        await asyncio.wait_for(asyncio.gather(leading, following), scaled(5))

    assert not done
    assert provider.asked == 1


async def test_the_others_ask_all_at_once_when_the_one_who_asked_has_failed(
    redis_url: str,
) -> None:
    provider = Provider()

    async with processes(redis_url, provider) as (first, second):
        leading = first.start()
        await asked(provider, 1)
        following = [second.start() for _ in range(4)]
        # Once their process has subscribed to the news, they have looked and wait.
        await wait_until_async(lambda: _listeners(second.redis), what="they wait")
        provider.answers[0].set_exception(Overloaded("busy"))
        await asked(provider, 5)
        for answer in provider.answers[1:]:
            answer.set_result(ANSWER)
        await asyncio.wait_for(asyncio.gather(*following), scaled(5))
        with pytest.raises(Overloaded):
            await leading


async def _listeners(redis: Redis) -> bool:
    ((_, number),) = await redis.pubsub_numsub("agentchord:signals")
    return bool(number)


async def test_without_redis_everybody_asks_himself() -> None:
    provider = Provider()

    async with processes("redis://127.0.0.1:1/0", provider, 1) as (process,):
        calls = [process.start() for _ in range(3)]
        await asked(provider, 3)
        for answer in provider.answers:
            answer.set_result(ANSWER)
        done = await asyncio.gather(*calls)

    assert [job.settling.calls for _, job in done] == [(), (), ()]


@pytest.mark.parametrize("stored", [b"", b"[]", b"{", b'{"content": 1}'])
async def test_what_nobody_understands_is_a_miss(redis_url: str, stored: bytes) -> None:
    redis = Redis.from_url(redis_url)
    await redis.set("agentchord:answers:{a}", stored)

    look = await AnswerCache(redis, key=KEY).look("a", "me")
    await redis.aclose()

    assert look == Look(asked_by="me")


async def test_what_a_writer_of_redis_puts_in_its_place_is_never_an_answer(redis_url: str) -> None:
    order = ToolCall(id="1", name="pay", arguments='{"usd": 1}')
    forged = replace(ANSWER, tool_calls=[order])
    address, other = address_of({"a": 1}), address_of({"a": 2})
    key, other_key = (f"agentchord:answers:{{{each}}}" for each in (address, other))

    async with asyncio.timeout(scaled(5)), connect_redis(redis_url) as redis:
        cache = AnswerCache(redis, key=KEY)
        await cache.finish(address, "me", ANSWER, 60)
        await cache.finish(other, "me", forged, 60)
        genuine, moved = [bytes(found or b"") for found in await redis.mget(key, other_key)]  # type: ignore[arg-type]
        altered = genuine.replace(b"blue", b"pink")
        of_a_stranger = AnswerCache(redis, key=b"guessed")._signed(address, moved[32:])
        looks = []
        for value in (moved, altered, moved[32:], of_a_stranger, genuine[:40], bytes(32), b"x"):
            await redis.set(key, value)
            looks.append(await cache.look(address, "you"))
        await cache.finish(address, "you", ANSWER, 60)
        replaced = await cache.look(address, "you")

    assert altered != genuine
    assert looks == [Look(asked_by="you")] * 7
    assert replaced is not None
    assert replaced.answer is not None
    assert replaced.answer.tool_calls == ANSWER.tool_calls


async def test_all_workers_of_a_cluster_have_one_key_that_only_postgres_stores(
    cluster: Cluster,
) -> None:
    engine = cluster.engine

    keys = await asyncio.gather(*(cluster_key(engine, ANSWERS) for _ in range(8)))

    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    assert await cluster_key(engine, "another") not in keys


@pytest.mark.parametrize(
    "answer",
    [
        LLMResponse(content="x" * MAX_BYTES, model="m", input_tokens=1, output_tokens=1),
        LLMResponse(
            content="cut", model="m", input_tokens=1, output_tokens=1, finish_reason="length"
        ),
    ],
)
async def test_what_is_too_large_or_incomplete_is_not_kept(
    redis_url: str, answer: LLMResponse
) -> None:
    redis = Redis.from_url(redis_url)
    cache = AnswerCache(redis, key=KEY)

    await cache.look("a", "me")
    await cache.finish("a", "me", answer, 60)
    keys = await redis.keys("agentchord:answers*")
    await redis.aclose()

    assert keys == []


async def test_answers_stay_for_their_time(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)

    await AnswerCache(redis, key=KEY).finish("a", "me", ANSWER, 60)
    left_ms = await redis.pttl("agentchord:answers:{a}")
    await redis.aclose()

    assert 50_000 < left_ms <= 60_000


async def test_long_integers_of_requests_and_answers_keep_their_digits(redis_url: str) -> None:
    large = (1 << 70) + 1
    blocks = [{"type": "tool_use", "id": "1", "name": "order", "input": {"number": large}}]
    answer = LLMResponse(
        content="",
        model="m",
        input_tokens=1,
        output_tokens=1,
        metadata={"original": {"by": "anthropic", "message": blocks}},
    )
    address = address_of({"schema": {"const": large}})

    async with asyncio.timeout(scaled(5)), connect_redis(redis_url) as redis:
        cache = AnswerCache(redis, key=KEY)
        await cache.finish(address, "token", answer, ttl_s=60)
        look = await cache.look(address, "token")

    assert address != address_of({"schema": {"const": large + 1}})
    assert look is not None
    assert look.answer is not None
    assert look.answer.metadata["original"]["message"] == blocks


async def test_half_characters_of_answers_are_kept_and_can_be_asked_about(redis_url: str) -> None:
    half, call = "\ud83d", ToolCall(id="\ud83d", name="order", arguments="{}")
    answer = replace(ANSWER, content=half, tool_calls=[call])
    request = {"messages": [{"role": "assistant", "content": half, "tool_calls": [call]}]}
    address = address_of(request)

    async with asyncio.timeout(scaled(5)), connect_redis(redis_url) as redis:
        cache = AnswerCache(redis, key=KEY)
        await cache.finish(address, "token", answer, ttl_s=60)
        look = await cache.look(address, "token")

    assert look is not None
    assert look.answer is not None
    assert (look.answer.content, look.answer.tool_calls) == (half, [call])


async def test_a_shared_answer_names_no_container(redis_url: str) -> None:
    original = {"by": "anthropic", "message": [], "container": {"id": "c", "until_s": 10**11}}
    answer = replace(ANSWER, metadata={"original": original})
    address = address_of({"programs": True})

    async with asyncio.timeout(scaled(5)), connect_redis(redis_url) as redis:
        cache = AnswerCache(redis, key=KEY)
        await cache.finish(address, "token", answer, ttl_s=60)
        look = await cache.look(address, "token")

    assert look is not None
    assert look.answer is not None
    assert look.answer.metadata == {"cached": True}
    assert look.answer.content == ANSWER.content

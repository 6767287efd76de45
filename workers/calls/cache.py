"""Calls whose answers are shared: an equal request is answered without asking the provider again.

A wrapper with the interface of ``Caller``, for agents that ask for it. While one caller in the
whole cluster asks, the others wait for its answer; if it fails or dies, they ask themselves.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from decimal import Decimal
from secrets import token_hex
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from app.costs.pricing import Pricing
from app.domain.money import round_to_ledger
from app.events.signals import Signals
from app.llm.base import LLMResponse, Message
from app.llm.cache import MAX_WAIT_S, AnswerCache, Look, address_of
from app.llm.parameters import NOT_PARAMETERS
from app.storage.records import CallRecord
from workers.agents.llm import Calls
from workers.inflight import Phase
from workers.jobs import Job

#: Who waits looks again after this time at most, in case the word was lost.
LOOK_AGAIN_S = 0.5
KEEPS_PER_LEASE = 3
# They change how an answer comes, and not what it is.
_OF_THE_WAY = frozenset(
    {"prompt_cache", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    | {"stream", "stream_options", "service_tier"}
)


class CachedCaller:
    """Makes calls unless their answer is known.

    Args:
        caller: Makes the calls.
        cache: The answers.
        signals: Tells those who wait that the answer has come.
        pricing: What a call would have cost.
    """

    def __init__(
        self, caller: Calls, *, cache: AnswerCache, signals: Signals, pricing: Pricing
    ) -> None:
        self._caller = caller
        self._cache = cache
        self._signals = signals
        self._pricing = pricing
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(
        self,
        job: Job,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
    ) -> LLMResponse:
        """See ``Caller.call``."""
        ttl_s = job.agent.cache_ttl_s
        if ttl_s is None:
            return await self._caller.call(job, messages, tools)
        address, token = address_of(_request(job, messages, tools)), token_hex(8)
        found = await self._settled(job, address, token)
        if found is not None and found.answer is not None:
            job.calls.append(self._entry(job, found.answer))
            return found.answer
        if found is None or found.asked_by != token:
            return await self._caller.call(job, messages, tools)
        return await self._ask(job, messages, tools, address=address, token=token, ttl_s=ttl_s)

    async def close(self) -> None:
        """Let what is being said to the others be said."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=MAX_WAIT_S)

    async def _settled(self, job: Job, address: str, token: str) -> Look | None:
        """Wait until the answer is known, or it is one's own turn to ask.

        It is so as well if whoever asked first has failed, and another one asks now: those who
        wait do not fail one after the other. And nobody waits longer than he may call.
        """
        found = await self._cache.look(address, token)
        if found is None or found.answer is not None or found.asked_by in (token, None):
            return found
        first = found.asked_by
        job.lease.phase = Phase.WAITING
        async with self._signals.watching(_topic(address)) as news:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(job.calling_left_s):
                    while found is not None and found.answer is None and found.asked_by == first:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(news.wait(), LOOK_AGAIN_S)
                        news.clear()
                        found = await self._cache.look(address, token)
        return found

    async def _ask(
        self,
        job: Job,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        *,
        address: str,
        token: str,
        ttl_s: float,
    ) -> LLMResponse:
        keeper = asyncio.create_task(self._keep(address, token), name="answer_keeper")
        response: LLMResponse | None = None
        try:
            response = await self._caller.call(job, messages, tools)
            return response
        finally:
            keeper.cancel()
            # In the background: neither a cancellation nor a slow Redis is to stop the others.
            self._start(self._finish(address, token, response, ttl_s))

    async def _keep(self, address: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._cache.lease_s / KEEPS_PER_LEASE)
            await self._cache.keep(address, token)

    async def _finish(
        self, address: str, token: str, response: LLMResponse | None, ttl_s: float
    ) -> None:
        await self._cache.finish(address, token, response, ttl_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_S):
                await self._signals.send(_topic(address), "answered")

    def _entry(self, job: Job, answer: LLMResponse) -> CallRecord:
        """The line of the ledger: it costs nothing, and says what it would have cost."""
        agent = job.agent
        price = self._pricing.price_of(agent.provider, agent.model, agent.llm_config)
        return CallRecord(
            call_id=uuid7(),
            run_id=job.run.run_id,
            agent_run_id=job.claimed.id,
            attempt=job.claimed.attempt,
            workflow_id=job.run.workflow_id,
            workflow=job.run.workflow.name,
            version=job.run.version,
            tenant=job.run.tenant,
            agent=agent.name,
            module=agent.module,
            provider=agent.provider,
            model=agent.model,
            model_answered=answer.model,
            budget_ids=job.run.budget_ids,
            cost_usd=Decimal(0),
            saved_usd=round_to_ledger(price.cost(answer.usage)),
            kind="cached",
            price_version=price.version,
        )

    def _start(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(step, name="answer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _request(
    job: Job, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What makes a request what it is. Tenants share nothing, nor do providers."""
    agent = job.agent
    left_out = (NOT_PARAMETERS - {"max_tokens"}) | _OF_THE_WAY
    return {
        "tenant": job.run.tenant,
        "provider": agent.provider,
        "model": agent.model,
        "messages": list(messages),
        "tools": list(tools),
        "parameters": {
            key: value for key, value in agent.llm_config.items() if key not in left_out
        },
        "output_schema": agent.output_schema,
    }


def _topic(address: str) -> UUID:
    return UUID(address[:32])

"""The ring of shared answers: equal requests share the answer to one call to the provider.

The ring applies to agents with ``cache``. While one call of the cluster is in flight, equal calls
wait for the answer to this call. If this call fails or the call's worker dies, the waiting calls
ask the provider.
"""

import asyncio
import contextlib
from secrets import token_hex
from typing import Any
from uuid import UUID

from app.costs.pricing import Pricing
from app.events.signals import Signals
from app.llm.base import LLMResponse
from app.llm.cache import MAX_WAIT_S, AnswerCache, Look, address_of
from app.llm.parameters import NOT_PARAMETERS
from app.llm.parts import without_data
from workers.background import Background
from workers.calls.base import CallOutcome, CallRequest, CallRing
from workers.calls.records import shared

#: Seconds after which a waiting call looks for the answer again, in case the signal was lost.
LOOK_AGAIN_S = 0.5
KEEPS_PER_LEASE = 3
# Parameters that change only the delivery of an answer, not the answer.
_OF_THE_WAY = frozenset(
    {"prompt_cache", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    | {"stream", "stream_options", "service_tier"}
)


class CacheRing:
    """Makes each call unless the answer to the call is known.

    Its weakness: only requests with the same messages and parameters are equal, and all equal
    requests get one answer, at any temperature. While Redis is away, every call is made. For
    prompts that share only their beginning, the alternative is the provider's own ``prompt_cache``.

    Args:
        inner: The next inner ring.
        cache: The answers.
        signals: Tells the waiting calls that the answer has arrived.
        pricing: Returns the price of a call that a known answer has made unnecessary.
        background: Runs steps that no agent waits for.
    """

    def __init__(
        self,
        inner: CallRing,
        *,
        cache: AnswerCache,
        signals: Signals,
        pricing: Pricing,
        background: Background,
    ) -> None:
        self._inner = inner
        self._cache = cache
        self._signals = signals
        self._pricing = pricing
        self._background = background

    async def call(self, request: CallRequest) -> CallOutcome:
        """See ``CallRing``."""
        ttl_s = request.agent.cache_ttl_s
        if ttl_s is None:
            return await self._inner.call(request)
        address, token = address_of(_facts_of(request)), token_hex(8)
        found = await self._settled(request, address, token)
        if found is not None and found.answer is not None:
            return self._share(request, found.answer)
        if found is None or found.asked_by != token:
            return await self._inner.call(request)
        return await self._ask(request, address=address, token=token, ttl_s=ttl_s)

    async def _settled(self, request: CallRequest, address: str, token: str) -> Look | None:
        """Wait until the answer is known, or until this call may ask the provider.

        If the first call has failed and another call asks the provider now, this call may ask the
        provider, too. Otherwise the waiting calls could fail one after another. No call waits
        longer than the time that its agent may still spend on calls.
        """
        found = await self._cache.look(address, token)
        if found is None or found.answer is not None or found.asked_by in (token, None):
            return found
        first = found.asked_by
        request.wait()
        async with self._signals.watching(_topic(address)) as news:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(request.job.clock.left_s):
                    while found is not None and found.answer is None and found.asked_by == first:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(news.wait(), LOOK_AGAIN_S)
                        news.clear()
                        found = await self._cache.look(address, token)
        return found

    async def _ask(
        self, request: CallRequest, *, address: str, token: str, ttl_s: float
    ) -> CallOutcome:
        keeper = asyncio.create_task(self._keep(address, token), name="answer_keeper")
        response: LLMResponse | None = None
        try:
            outcome = await self._inner.call(request)
            response = outcome.response
            return outcome
        finally:
            keeper.cancel()
            # This step runs in the background, so that neither a cancellation nor a slow Redis
            # delays the waiting calls.
            self._background.start(self._finish(address, token, response, ttl_s), name="answer")

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

    def _share(self, request: CallRequest, answer: LLMResponse) -> CallOutcome:
        agent = request.agent
        price = self._pricing.price_of(agent.provider, agent.model, agent.llm_config)
        record = shared(request, price, answer)
        request.job.settling.note(record)
        return CallOutcome(response=answer, call_id=record.call_id)


def _facts_of(request: CallRequest) -> dict[str, Any]:
    """Return the facts that make two requests equal; tenants and providers share no answers."""
    agent = request.agent
    left_out = (NOT_PARAMETERS - {"max_tokens"}) | _OF_THE_WAY
    return {
        "tenant": request.job.run.tenant,
        "provider": agent.provider,
        "model": agent.model,
        # A hash of the bytes of an image is enough to tell requests apart.
        "messages": [without_data(message) for message in request.messages],
        "tools": list(request.tools),
        "parameters": {
            key: value for key, value in agent.llm_config.items() if key not in left_out
        },
        "output_schema": agent.output_schema,
    }


def _topic(address: str) -> UUID:
    return UUID(address[:32])

"""Counts the tokens of long prompts with the provider's own endpoint, before a call is planned.

Without a count, the hold for a long prompt is about four times the real price of the prompt.
Therefore calls with long prompts would wait for their budgets. A count costs nothing, but takes a
round trip, so short prompts are not counted.
"""

import asyncio
from functools import partial

import structlog

from app.configuration.sections import TOKEN_COUNT
from app.domain.usage import Usage
from app.domain.waits import LongWait
from app.errors import AgentError, InvalidJson, ProviderError, RateLimited
from app.llm.cache import address_of
from app.llm.clients import Clients
from app.llm.parts import without_data
from app.planning.calls import CallPlan
from app.rate_limits.base import LimitRequest
from app.rate_limits.limiter import ClusterLimiter
from workers.calls.base import CallRequest

#: A prompt is counted if its upper bound is at least this number of tokens.
COUNT_FROM_TOKENS = 50_000
#: After these seconds, which include waits for limits, a call goes on without a count.
MAX_WAIT_S = 10.0
#: The number of tries of a count. If a provider refuses a count with 429, the next try follows
#: after the pause of the bucket.
TRIES = 2
#: Number of counts that a process remembers.
MAX_KNOWN = 1000

log = structlog.get_logger(__name__)


class TokenCounter:
    """Asks providers for the number of tokens of long prompts; see ``Counter`` in ``provider``.

    The requests have limits of their own, under the name ``token_count``; if the configuration has
    no such limits, the requests are unlimited. The requests change neither the limits of calls nor
    the circuits. The requests have no hold and no entry in the ledger.

    A server that imitates the API of a provider may count wrongly. If a prompt has more tokens than
    the bound that was computed from its count, this process counts no more prompts for the model.

    Weakness: a conversation with tools is counted anew in every turn, and each process has counts
    of its own. If a count fails or comes too late, the call is planned with the upper bound.

    Args:
        clients: The providers' clients.
        limiter: The cluster's limiter.
    """

    def __init__(self, *, clients: Clients, limiter: ClusterLimiter) -> None:
        self._clients = clients
        self._limiter = limiter
        self._known: dict[str, int] = {}
        self._wrong: set[tuple[str, str]] = set()

    async def count(self, request: CallRequest, plan: CallPlan) -> int | None:
        """See ``Counter``."""
        is_short = plan.bound_tokens < COUNT_FROM_TOKENS
        if is_short or (request.provider, request.model) in self._wrong:
            return None
        # If an agent was handed back or is tried again, the agent comes back with the same prompt.
        try:
            address = _address(request, plan)
        except InvalidJson:
            return None
        if (known := self._known.get(address)) is not None:
            return known
        counted = await self._within_time(request, plan)
        if counted is not None:
            self._known[address] = counted
            if len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
        return counted

    def check(self, request: CallRequest, plan: CallPlan, billed_tokens: int) -> None:
        """See ``Counter``."""
        if plan.counted and billed_tokens > plan.bound_tokens:
            self._wrong.add((request.provider, request.model))
            log.warning(
                "count_too_small",
                provider=request.provider,
                model=request.model,
                counted=plan.guessed_tokens,
                billed=billed_tokens,
                effect="prompts of this model are not counted any more",
            )

    async def _within_time(self, request: CallRequest, plan: CallPlan) -> int | None:
        limit = LimitRequest(
            provider=request.provider,
            model=TOKEN_COUNT,
            counting=plan.counting,
            run_id=str(request.job.run.run_id),
            input_tokens=0,
            output_tokens=0,
            priority=request.agent.priority,
            weight=request.job.run.weight,
        )
        request.wait()
        blocked_by = partial(self._limiter.blocked_by, limit)
        try:
            with request.job.waits.waiting("limit", blocked_by):
                async with asyncio.timeout(min(MAX_WAIT_S, request.job.clock.left_s)):
                    return await self._asked(request, plan, limit)
        except (TimeoutError, LongWait, AgentError) as error:
            log.info(
                "prompt_not_counted",
                provider=request.provider,
                model=request.model,
                error=f"{type(error).__name__}: {error}"[:200],
            )
            return None

    async def _asked(self, request: CallRequest, plan: CallPlan, limit: LimitRequest) -> int | None:
        for tries_left in reversed(range(TRIES)):
            try:
                return await self._ask(request, plan, limit)
            except RateLimited:
                # The limiter has paused the bucket, so the next try waits.
                if not tries_left:
                    raise
        return None

    async def _ask(self, request: CallRequest, plan: CallPlan, limit: LimitRequest) -> int | None:
        permit = await self._limiter.acquire(limit, max_wait_s=MAX_WAIT_S)
        settle = partial(self._limiter.settle, permit, whole=False)
        try:
            counted = await self._clients.get(request.provider).count_tokens(
                request.messages, request.model, request.tools or None, **plan.parameters
            )
        except ProviderError as error:
            settle(
                usage=None if error.reached else Usage(),
                headers=error.headers,
                retry_after_s=error.retry_after_s,
                throttled=isinstance(error, RateLimited),
            )
            raise
        except BaseException:
            settle(usage=None)
            raise
        settle(usage=None)
        return counted


def _address(request: CallRequest, plan: CallPlan) -> str:
    return address_of(
        {
            "provider": request.provider,
            "model": request.model,
            "messages": [without_data(message) for message in request.messages],
            "tools": list(request.tools),
            "parameters": dict(plan.parameters),
        }
    )

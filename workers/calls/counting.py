"""Counts the tokens of long prompts with the provider's own endpoint, before a call is planned.

Without a count, the hold of a long prompt is about four times its real price, so long prompts make
budgets wait. A count costs nothing, but takes a round trip, so short prompts are not counted.
"""

import asyncio
from functools import partial

import structlog

from app.configuration.sections import TOKEN_COUNT
from app.domain.waits import LongWait
from app.errors import AgentError, ProviderError, RateLimited
from app.llm.clients import Clients
from app.planning.calls import CallPlan
from app.rate_limits.base import LimitRequest
from app.rate_limits.limiter import ClusterLimiter
from workers.calls.base import CallRequest

#: Prompts whose upper bound has at least this number of tokens are counted.
COUNT_FROM_TOKENS = 50_000
#: Seconds, including waits for limits, after which a call goes on without a count.
MAX_WAIT_S = 10.0

log = structlog.get_logger(__name__)


class TokenCounter:
    """Asks providers for the number of tokens of long prompts.

    The requests have limits of their own, under the name ``token_count``; if the configuration has
    no such limits, the requests are unlimited.

    Weakness: a conversation with tools is counted anew in every turn. If a count fails or comes too
    late, the call is planned with the upper bound.

    Args:
        clients: The providers' clients.
        limiter: The cluster's limiter.

    Example:
        counted = await counter.count(request, plan)
        plan = planner.plan(agent, messages, tools, counted_tokens=counted)
    """

    def __init__(self, *, clients: Clients, limiter: ClusterLimiter) -> None:
        self._clients = clients
        self._limiter = limiter

    async def count(self, request: CallRequest, plan: CallPlan) -> int | None:
        """Return the number of tokens of a prompt, or None if it is short or cannot be counted.

        Args:
            request: The call.
            plan: The call's plan without a count.
        """
        if plan.bound_tokens < COUNT_FROM_TOKENS:
            return None
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
        try:
            async with asyncio.timeout(min(MAX_WAIT_S, request.job.clock.left_s)):
                with request.job.waits.waiting("limit", partial(self._limiter.blocked_by, limit)):
                    permit = await self._limiter.acquire(limit, max_wait_s=MAX_WAIT_S)
                failure: ProviderError | None = None
                try:
                    return await self._clients.get(request.provider).count_tokens(
                        request.messages, request.model, request.tools or None, **plan.parameters
                    )
                except ProviderError as error:
                    failure = error
                    raise
                finally:
                    self._limiter.settle(
                        permit,
                        usage=None,
                        headers=failure.headers if failure else {},
                        retry_after_s=failure.retry_after_s if failure else None,
                        throttled=isinstance(failure, RateLimited),
                        whole=False,
                    )
        except (TimeoutError, LongWait, AgentError) as error:
            log.info("prompt_not_counted", provider=request.provider, error=str(error)[:200])
            return None

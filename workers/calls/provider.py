"""One call to a provider: limit, hold, call, and an account of what it cost, whatever happens.

Every way out of ``call`` leaves exactly one CallRecord with the job once a hold was placed, so
that the next record settles it.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from uuid_utils.compat import uuid7

from app.costs.price import Price
from app.costs.pricing import Pricing
from app.domain.budgets import subjects_of
from app.domain.money import HoldRequest, round_up
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.domain.usage import Partial, Usage
from app.errors import AgentTimeout, BadRequest, ProviderError, RateLimited
from app.events.texts import Publisher, Stream
from app.llm.base import LLMResponse, Message
from app.llm.clients import Clients
from app.llm.estimates import PromptEstimates
from app.llm.parameters import NOT_PARAMETERS
from app.llm.structured import OUTPUT_SCHEMA
from app.llm.tokens import expected_tokens, upper_bound_tokens, usual_tokens
from app.rate_limits.base import LimitRequest, Permit
from app.rate_limits.limiter import ClusterLimiter
from workers.calls.money import HoldTicket, Money
from workers.calls.records import (
    CallPlan,
    answered,
    broken_off,
    note_seconds,
    refused,
    unconfirmed,
    void,
)
from workers.inflight import Phase
from workers.jobs import Job


class Caller:
    """Makes calls for all jobs of a process.

    Args:
        clients: The providers' clients.
        limiter: The cluster's limiter.
        pricing: Prices.
        money: Places holds.
        texts: Tells those who follow the run what streaming agents generate.
        default_max_tokens: Output cap of agents that set none.
        providers: The providers of this cluster, whose protocols tell how limits count.
        long_wait_s: Who has to wait longer than this gives up, if he can come back.
    """

    def __init__(
        self,
        *,
        clients: Clients,
        limiter: ClusterLimiter,
        pricing: Pricing,
        money: Money,
        texts: Publisher,
        default_max_tokens: int,
        long_wait_s: float,
        providers: Sequence[Provider] = BUILT_IN,
    ) -> None:
        self._clients = clients
        self._limiter = limiter
        self._pricing = pricing
        self._money = money
        self._texts = texts
        self._default_max_tokens = default_max_tokens
        self._long_wait_s = long_wait_s
        self._providers = providers
        self._estimates = PromptEstimates()

    async def call(
        self,
        job: Job,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
    ) -> LLMResponse:
        """Make one call; its CallRecord is added to ``job.calls``.

        Args:
            job: Who calls.
            messages: The conversation so far.
            tools: Tools the model may ask for.

        Returns:
            The model's answer.

        Raises:
            AgentError: By cause; nothing was sent for UnknownModel and BudgetExceeded.
            LeaseGone: If the job may not go on.
            LongWait: If it has to wait long, and can come back later.
        """
        client = self._clients.get(job.agent.provider)
        plan = self._plan(job, messages, tools)
        # A call is refused for good only if it is certain not to fit.
        surely = min(plan.least_tokens, plan.limit.input_tokens)
        if refusal := self._limiter.refusal(replace(plan.limit, input_tokens=surely)):
            raise BadRequest(
                f"agent {job.agent.name!r}: {refusal}", provider=job.agent.provider, reached=False
            )
        permit = await self._permit_and_hold(job, plan)
        job.lease.phase, job.called = Phase.CALLING, True
        loop = asyncio.get_running_loop()
        started_at_s = loop.time()
        broken: list[Partial] = []
        job.turns += 1
        text = self._text_of(job) if plan.parameters.get("stream") else None
        try:
            async with asyncio.timeout(job.calling_left_s):
                response = await client.complete_with_tools(
                    messages,
                    job.agent.model,
                    tools or None,
                    max_tokens=plan.max_tokens,
                    before_sent=(
                        None if permit.spec.unlimited else partial(self._limiter.mark_sent, permit)
                    ),
                    on_text=text.add if text else None,
                    on_broken=broken.append,
                    **plan.parameters,
                )
        except BaseException as error:
            self._account_for(job, plan, permit, error, broken[0] if broken else None)
            note_seconds(job, loop.time() - started_at_s)
            if isinstance(error, TimeoutError):
                raise AgentTimeout(
                    f"agent {job.agent.name!r} was still calling after {job.agent.timeout:g} s: "
                    "raise its timeout or ask for less output"
                ) from error
            raise
        finally:
            job.calling_left_s = max(job.calling_left_s - (loop.time() - started_at_s), 0.0)
        self._limiter.settle(permit, usage=response.usage, headers=response.headers)
        if not response.metadata.get("usage_missing"):
            counted = response.usage.prompt_tokens
            self._estimates.learn(
                plan.limit.provider, plan.limit.model, plan.guessed_tokens, counted
            )
        job.calls.append(answered(job, plan, response))
        note_seconds(job, loop.time() - started_at_s)
        if text:
            if job.first_token_s is None:
                job.first_token_s = response.metadata.get("first_token_s")
            await text.close()
        return response

    def _text_of(self, job: Job) -> Stream:
        return self._texts.open(
            run_id=job.run.run_id,
            agent=job.agent.name,
            attempt=job.claimed.attempt,
            turn=job.turns,
        )

    def _plan(
        self, job: Job, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> CallPlan:
        agent = job.agent
        price = self._pricing.price_of(agent.provider, agent.model, agent.llm_config)
        parameters = {
            key: value for key, value in agent.llm_config.items() if key not in NOT_PARAMETERS
        }
        if agent.output_schema is not None:
            parameters[OUTPUT_SCHEMA] = agent.output_schema
        guess = expected_tokens(messages, tools, parameters, model=agent.model)
        # What the most frugal tokenizer makes of it: less than that it never is.
        least = usual_tokens(guess, agent.model)
        window = self._pricing.context_window(agent.provider, agent.model)
        if window is not None and least > window:
            raise BadRequest(
                f"agent {agent.name!r}: the prompt has about {least:,} tokens, {agent.model} "
                f"reads {window:,}: shorten its input",
                provider=agent.provider,
                reached=False,
            )
        bound = upper_bound_tokens(messages, tools, parameters)
        max_tokens = self._max_tokens(job, price, bound)
        cache_writes = "cache_control" in str(parameters) or bool(parameters.get("prompt_cache"))
        worst_case_usd = price.worst_case(bound, max_tokens, cache_writes=cache_writes)
        return CallPlan(
            cache_writes=cache_writes,
            price=price,
            parameters=parameters,
            max_tokens=max_tokens,
            hold=HoldRequest(
                call_id=uuid7(),
                agent_run_id=job.claimed.id,
                attempt=job.claimed.attempt,
                budget_ids=job.run.budget_ids,
                amount_usd=round_up(worst_case_usd),
                begun=not job.may_be_given_back,
                subjects=subjects_of(
                    workflow=job.run.workflow.name, module=agent.module, tenant=job.run.tenant
                ),
                provider=agent.provider,
                model=agent.model,
            ),
            bound_tokens=bound,
            guessed_tokens=guess,
            least_tokens=least,
            limit=LimitRequest(
                provider=agent.provider,
                model=agent.model,
                counting=protocol_of(agent.provider, self._providers).counting,
                run_id=str(job.run.run_id),
                input_tokens=self._estimates.corrected(agent.provider, agent.model, guess),
                output_tokens=max_tokens,
                priority=agent.priority,
                weight=job.run.weight,
            ),
        )

    def _account_for(
        self, job: Job, plan: CallPlan, permit: Permit, error: BaseException, came: Partial | None
    ) -> None:
        """Settle a call that brought no answer, whatever stopped it and whatever came of it."""
        outcome = type(error).__name__
        refusal = error if isinstance(error, ProviderError) else None
        usage = came.usage if came else None
        if refusal and not refusal.reached:
            usage = Usage()
        headers = refusal.headers if refusal else {}
        self._limiter.settle(
            permit,
            usage=usage,
            headers=headers or (came.headers if came else {}),
            retry_after_s=refusal.retry_after_s if refusal else None,
            throttled=isinstance(error, RateLimited),
            whole=came is None,
        )
        if came:
            job.calls.append(broken_off(job, plan, outcome, came))
        elif refusal:
            job.calls.append(refused(job, plan, refusal))
        else:
            job.calls.append(unconfirmed(job, plan, outcome))

    async def _permit_and_hold(self, job: Job, plan: CallPlan) -> Permit:
        """Take the limit, then the money; whoever has to wait for money gives the limit back.

        Who has waited keeps the money while he takes the limit again: nobody waits for money
        with a permit in his hands, so somebody always gets both.
        """
        ticket = HoldTicket(agent=job.agent.name, request=plan.hold)
        max_wait_s = self._long_wait_s if job.may_be_given_back else math.inf
        blocked_by = partial(self._limiter.blocked_by, plan.limit)
        try:
            while True:
                job.lease.phase = Phase.WAITING
                with job.waiting("limit", blocked_by):
                    permit = await self._limiter.acquire(
                        plan.limit, early=True, max_wait_s=max_wait_s
                    )
                try:
                    if job.ticket is not None:
                        job.ticket.check()
                    placed = ticket.placed or await self._money.hold(ticket)
                except BaseException:
                    self._limiter.hand_back(permit)
                    raise
                if placed and await self._start(job, permit):
                    return permit
                if not placed:
                    self._limiter.hand_back(permit)
                    with job.waiting("money", lambda: ticket.waits_for):
                        await self._money.wait(ticket, max_wait_s=max_wait_s)
        except BaseException:
            if ticket.placed:
                job.calls.append(void(job, plan))
            raise

    async def _start(self, job: Job, permit: Permit) -> bool:
        """Wait for the permit's moment; False if it has passed and another one is needed."""
        try:
            with job.waiting("limit", partial(self._limiter.blocked_by, permit.request)):
                return await self._limiter.start(permit)
        except BaseException:
            self._limiter.hand_back(permit)
            raise

    def _max_tokens(self, job: Job, price: Price, bound: int) -> int:
        """The output cap: the agent's own, or the default and what its cost_limit affords."""
        own = job.agent.llm_config.get("max_tokens")
        if own is not None:
            return int(own)
        limit = self._pricing.max_output_tokens(job.agent.provider, job.agent.model)
        cap = min(limit or self._default_max_tokens, self._default_max_tokens)
        prompt_usd = price.worst_case(bound, 0)
        per_token_usd = price.worst_case(bound, 1) - prompt_usd
        spent_usd = job.claimed.spent_usd + sum(call.cost_usd for call in job.calls)
        left_usd = job.claimed.limit_usd - spent_usd - prompt_usd
        affordable = int(left_usd / per_token_usd) if per_token_usd else cap
        return max(min(cap, affordable), 1)

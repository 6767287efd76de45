"""The innermost ring, which takes a permit and a hold, sends the request and notes the cost.

After a hold is placed, the method ``call`` notes exactly one call record, however the method ends.
So the next record of the attempt settles the hold.
"""

import asyncio
import time
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Protocol

import structlog
from uuid_utils.compat import uuid7

from app.domain.budgets import subjects_of
from app.domain.money import HoldRequest, round_up
from app.domain.usage import Partial, Usage
from app.errors import AgentTimeout, BadRequest, Overloaded, ProviderError, RateLimited
from app.events.texts import Publisher, Stream
from app.llm.base import LLMResponse
from app.llm.clients import Clients
from app.llm.estimates import PromptEstimates
from app.planning.calls import CallPlan, CallPlanner
from app.rate_limits.base import LimitRequest, Permit
from app.rate_limits.limiter import ClusterLimiter
from workers.calls.base import CallOutcome, CallRequest
from workers.calls.money import HoldTicket, Money
from workers.calls.records import PreparedCall, answered, failed, void
from workers.history import HistoryWriter
from workers.texts import storable

log = structlog.get_logger(__name__)


class Counter(Protocol):
    """Counts the tokens of prompts for the provider's ring.

    Example:
        counted = await counter.count(request, plan)
        plan = planner.plan(agent, messages, tools, counted_tokens=counted)
        ...
        counter.check(request, plan, response.usage.prompt_tokens)
    """

    async def count(self, request: CallRequest, plan: CallPlan) -> int | None:
        """Return a prompt's number of tokens; None if the prompt is short or cannot be counted.

        Args:
            request: The call.
            plan: The call's plan without a count.
        """
        ...

    def check(self, request: CallRequest, plan: CallPlan, billed_tokens: int) -> None:
        """Compare a count with the tokens that the provider bills.

        Args:
            request: The call.
            plan: The call's plan.
            billed_tokens: Number of the prompt's tokens that the provider's answer reports.
        """
        ...


class ProviderRing:
    """Makes calls for all jobs of a process.

    Its weakness: a hold covers the worst case of its call. The worst case is often many times the
    real cost, so few calls run at the same time under a small budget. The alternative is to hold an
    estimate, but then a call could overspend the budget.

    Args:
        clients: The providers' clients.
        limiter: The cluster's limiter.
        planner: Plans calls.
        money: Places holds.
        texts: Publishes the text of streaming agents to the clients that follow the run.
        counter: Counts the tokens of long prompts.
        history: Notes in the runs' histories that another model has answered.
    """

    def __init__(
        self,
        *,
        clients: Clients,
        limiter: ClusterLimiter,
        planner: CallPlanner,
        money: Money,
        texts: Publisher,
        counter: Counter,
        history: HistoryWriter,
    ) -> None:
        self._clients = clients
        self._limiter = limiter
        self._planner = planner
        self._money = money
        self._texts = texts
        self._counter = counter
        self._history = history
        self._estimates = PromptEstimates()

    async def call(self, request: CallRequest) -> CallOutcome:
        """See ``CallRing``."""
        call = await self._prepare(request)
        permit = await self._permit_and_hold(call)
        clock, settling = request.job.clock, request.job.settling
        request.begin()
        text = self._text_of(request) if call.plan.parameters.get("stream") else None
        broken: list[Partial] = []
        started_s = time.monotonic()
        try:
            with clock.running():
                async with asyncio.timeout(clock.left_s):
                    response = await self._send(call, permit, text, broken)
        except BaseException as error:
            called_s = time.monotonic() - started_s
            came = broken[0] if broken else None
            self._correct_limits(permit, error, came)
            settling.note(failed(call, error, came, called_s))
            if isinstance(error, TimeoutError):
                raise AgentTimeout(
                    f"agent {request.agent.name!r} was still calling after "
                    f"{request.agent.timeout:g} s: raise its timeout or ask for less output",
                    called_s=called_s,
                ) from error
            raise
        self._limiter.settle(permit, usage=response.usage, headers=response.headers)
        if not response.metadata.get("usage_missing"):
            self._learn(call, response.usage.prompt_tokens)
        settling.note(answered(call, response, time.monotonic() - started_s))
        self._tell_other_model(call, response.model)
        if text:
            clock.first_token(response.metadata.get("first_token_s"))
            await text.close()
        return CallOutcome(response=response, call_id=call.hold.call_id)

    async def _prepare(self, request: CallRequest) -> PreparedCall:
        """Plan the call, and refuse a call that certainly can never be made."""
        job, agent = request.job, request.agent
        self._clients.get(request.provider)  # refuses a provider that is not configured
        left_usd = job.claimed.limit_usd - job.claimed.spent_usd - job.settling.spent_usd
        plan_of = partial(
            self._planner.plan, agent, request.messages, request.tools, affordable_usd=left_usd
        )
        plan = plan_of()
        if (counted := await self._counter.count(request, plan)) is not None:
            plan = plan_of(counted_tokens=counted)
        call = PreparedCall(
            request=request,
            plan=plan,
            hold=_hold_of(request, plan),
            limit=LimitRequest(
                provider=request.provider,
                model=request.model,
                run_id=str(job.run.run_id),
                input_tokens=self._expected_tokens(request, plan),
                output_tokens=plan.max_tokens,
                counting=plan.counting,
                priority=agent.priority,
                weight=job.run.weight,
            ),
        )
        problem = None
        if not plan.fits_window:
            problem = (
                f"the prompt has about {plan.least_tokens:,} tokens, but {request.model} reads at "
                f"most {plan.context_window:,}: shorten its input"
            )
        # The call is refused for good only if even the prompt's smallest token count does not fit.
        surely = replace(call.limit, input_tokens=min(plan.least_tokens, call.limit.input_tokens))
        if problem := problem or self._limiter.refusal(surely):
            raise BadRequest(
                f"agent {agent.name!r}: {problem}", provider=request.provider, reached=False
            )
        return call

    def _tell_other_model(self, call: PreparedCall, answered: str) -> None:
        """Tell the run's history and the log that another model than the requested has answered."""
        request, quote = call.request, call.plan.quote_answered(answered)
        if quote == call.plan.quote:
            return
        facts = {
            "agent": request.agent.name,
            "provider": request.provider,
            "model": request.model,
            "answered": storable(answered),
            "priced": quote.understood,
        }
        log.warning("another_model_answered", run_id=str(request.job.run.run_id), **facts)
        self._history.note(request.job, "another_model_answered", facts)

    def _expected_tokens(self, request: CallRequest, plan: CallPlan) -> int:
        guessed = plan.guessed_tokens
        if plan.counted:
            return guessed
        corrected = self._estimates.corrected(request.provider, request.model, guessed)
        return plan.media_tokens + corrected

    def _learn(self, call: PreparedCall, billed_tokens: int) -> None:
        """Compare the plan with the provider's final count of the prompt."""
        request, plan = call.request, call.plan
        if plan.server_uses.uses:
            return  # the provider's count includes the results of the provider's tools
        self._counter.check(request, plan, billed_tokens)
        # Images have formulas of their own, so images say nothing about the model's tokenizer.
        if not (plan.counted or plan.media_tokens):
            self._estimates.learn(
                request.provider, request.model, plan.guessed_tokens, billed_tokens
            )

    async def _send(
        self, call: PreparedCall, permit: Permit, text: Stream | None, broken: list[Partial]
    ) -> LLMResponse:
        request, plan = call.request, call.plan
        before_sent = partial(self._limiter.mark_sent, permit)
        return await self._clients.get(request.provider).complete_with_tools(
            request.messages,
            request.model,
            request.tools or None,
            max_tokens=plan.max_tokens,
            before_sent=None if permit.spec.unlimited else before_sent,
            on_text=text.add if text else None,
            on_broken=broken.append,
            **plan.parameters,
        )

    def _text_of(self, request: CallRequest) -> Stream:
        job = request.job
        return self._texts.open(
            run_id=job.run.run_id,
            agent=request.agent.name,
            attempt=job.claimed.attempt,
            turn=job.clock.calls,
        )

    def _correct_limits(self, permit: Permit, error: BaseException, came: Partial | None) -> None:
        """Settle the permit of a call that brought no answer."""
        refusal = error if isinstance(error, ProviderError) else None
        usage = came.usage if came else None
        full = refusal is not None and _lacks_capacity(refusal)
        if refusal and (full or not refusal.reached):
            usage = Usage()
        headers = refusal.headers if refusal else {}
        self._limiter.settle(
            permit,
            usage=usage,
            headers=headers or (came.headers if came else {}),
            retry_after_s=refusal.retry_after_s if refusal and not full else None,
            throttled=isinstance(error, RateLimited),
            whole=came is None,
        )

    async def _permit_and_hold(self, call: PreparedCall) -> Permit:
        """Take the permit, then the hold; give back the permit while the call waits for money.

        A call that has waited for money keeps its hold while it takes the permit again. No call
        that waits for money has a permit. Therefore at least one call always gets its permit and
        its hold.
        """
        request, job = call.request, call.request.job
        ticket = self._money.ticket(request.agent.name, call.hold)
        max_wait_s = job.clock.max_wait_s
        try:
            while True:
                request.wait()
                with job.waits.waiting("limit", partial(self._limiter.blocked_by, call.limit)):
                    permit = await self._limiter.acquire(
                        call.limit, early=True, max_wait_s=max_wait_s
                    )
                if await self._hold(request, ticket, permit):
                    if await self._start(request, permit):
                        return permit
                else:
                    self._limiter.hand_back(permit)
                    with job.waits.waiting("money", lambda: ticket.waits_for):
                        await ticket.wait(max_wait_s=max_wait_s)
        except BaseException:
            if ticket.placed:
                job.settling.note(void(call))
            raise

    async def _hold(self, request: CallRequest, ticket: HoldTicket, permit: Permit) -> bool:
        """Place the hold, unless the call must not start any more."""
        try:
            request.before_start()
            return await ticket.place()
        except BaseException:
            self._limiter.hand_back(permit)
            raise

    async def _start(self, request: CallRequest, permit: Permit) -> bool:
        """Wait for the start time of the permit; return False if that time has already passed."""
        try:
            blocked_by = partial(self._limiter.blocked_by, permit.request)
            with request.job.waits.waiting("limit", blocked_by):
                return await self._limiter.start(permit)
        except BaseException:
            self._limiter.hand_back(permit)
            raise


def _lacks_capacity(error: ProviderError) -> bool:
    """Return whether a 4xx, such as a 429, says that there is no capacity for the call's tier.

    Such an answer says nothing about the account's limits. Calls of other tiers are served.
    """
    status = error.status or HTTPStatus.OK
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return refused and isinstance(error, Overloaded)


def _hold_of(request: CallRequest, plan: CallPlan) -> HoldRequest:
    job, agent = request.job, request.agent
    return HoldRequest(
        call_id=uuid7(),
        agent_run_id=job.claimed.id,
        attempt=job.claimed.attempt,
        budget_ids=job.run.budget_ids,
        amount_usd=round_up(plan.worst_usd),
        begun=job.clock.begun,
        subjects=subjects_of(
            workflow=job.run.workflow.name, module=agent.module, tenant=job.run.tenant
        ),
        provider=agent.provider,
        model=agent.model,
    )

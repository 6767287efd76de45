"""One call to a provider: limit, hold, call, and an account of what it cost, whatever happens.

Every way out of ``call`` leaves exactly one CallRecord with the job once a hold was placed, so
that the next record settles it.
"""

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeVar
from uuid import UUID

from app.costs.price import Price
from app.costs.pricing import Pricing
from app.rate_limits.base import LimitRequest, Permit
from app.rate_limits.limiter import ClusterLimiter
from uuid_utils.compat import uuid7

from app.domain.money import HoldAnswer, HoldOutcome, HoldRequest
from app.domain.usage import Usage
from app.errors import AgentTimeout, BudgetExceeded, ProviderError, RateLimited
from app.llm.base import LLMResponse, Message
from app.llm.clients import Clients
from app.llm.tokens import expected_tokens, upper_bound_tokens
from app.storage.group_commit import GroupCommit
from app.storage.records import CallRecord
from workers.inflight import Phase, StopReason
from workers.jobs import Job

Result = TypeVar("Result")

WAIT_FOR_MONEY_S = 0.25


class LeaseGone(Exception):
    """The attempt is somebody else's, or its run is being stopped: no call may start."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Caller:
    """Makes calls for all jobs of a process.

    Args:
        clients: The providers' clients.
        limiter: The cluster's limiter.
        pricing: Prices.
        holds: Group commit of holds.
        default_max_tokens: Output cap of agents that set none.
    """

    def __init__(
        self,
        *,
        clients: Clients,
        limiter: ClusterLimiter,
        pricing: Pricing,
        holds: GroupCommit[HoldRequest, HoldAnswer],
        default_max_tokens: int,
    ) -> None:
        self._clients = clients
        self._limiter = limiter
        self._pricing = pricing
        self._holds = holds
        self._default_max_tokens = default_max_tokens

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
        """
        agent = job.agent
        client = self._clients.get(agent.provider)
        price = self._pricing.price_of(agent.provider, agent.model, agent.llm_config)
        bound = upper_bound_tokens(messages, tools)
        max_tokens = self._max_tokens(job, price, bound)
        hold = HoldRequest(
            call_id=uuid7(),
            agent_run_id=job.claimed.id,
            attempt=job.claimed.attempt,
            budget_ids=job.run.budget_ids,
            amount_usd=price.worst_case(bound, max_tokens),
        )
        request = LimitRequest(
            provider=agent.provider,
            model=agent.model,
            run_id=str(job.run.run_id),
            input_tokens=expected_tokens(messages, tools),
            output_tokens=max_tokens,
            priority=agent.priority,
        )
        permit = await self._permit_and_hold(job, request, hold)
        job.lease.phase = Phase.CALLING
        parameters = {
            key: value
            for key, value in agent.llm_config.items()
            if key not in ("model", "provider", "max_tokens", "system")
        }
        started_at_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(job.calling_left_s):
                response = await client.complete_with_tools(
                    messages, agent.model, tools or None, max_tokens=max_tokens, **parameters
                )
        except ProviderError as error:
            self._limiter.settle(
                permit,
                usage=None if error.reached else Usage(),
                headers=error.headers,
                retry_after_s=error.retry_after_s,
                throttled=isinstance(error, RateLimited),
            )
            job.calls.append(_failed(job, hold, price, error))
            raise
        except (TimeoutError, asyncio.CancelledError) as error:
            self._limiter.settle(permit, usage=None)
            job.calls.append(_unconfirmed(job, hold, price, type(error).__name__))
            if isinstance(error, TimeoutError):
                raise AgentTimeout(
                    f"agent {agent.name!r} was still calling after {agent.timeout:g} s: "
                    "raise its timeout or ask for less output"
                ) from error
            raise
        finally:
            elapsed_s = asyncio.get_running_loop().time() - started_at_s
            job.calling_left_s = max(job.calling_left_s - elapsed_s, 0.0)
        self._limiter.settle(permit, usage=response.usage, headers=response.headers)
        job.calls.append(
            _record(
                job,
                hold.call_id,
                price,
                price.cost(response.usage),
                model_answered=response.model,
                request_id=response.request_id,
                usage=response.usage,
                raw_usage=response.raw_usage,
            )
        )
        return response

    async def _permit_and_hold(self, job: Job, request: LimitRequest, hold: HoldRequest) -> Permit:
        """Take the limit, then the money; whoever has to wait for money gives the limit back."""
        while True:
            job.lease.phase = Phase.WAITING
            permit = await self._limiter.acquire(request)
            try:
                answer = await _to_the_end(self._holds.submit(hold), job, hold)
            except BaseException:
                self._limiter.hand_back(permit)
                raise
            if answer.outcome is HoldOutcome.PLACED:
                return permit
            self._limiter.hand_back(permit)
            match answer.outcome:
                case HoldOutcome.WAIT:
                    await asyncio.sleep(WAIT_FOR_MONEY_S * random.uniform(0.5, 1.5))  # noqa: S311
                case HoldOutcome.CLOSED:
                    raise LeaseGone(StopReason.RUN_STOPPED)
                case HoldOutcome.FENCED:
                    raise LeaseGone(StopReason.LEASE_LOST)
                case HoldOutcome.EXCEEDED:
                    raise _exceeded(job, hold.amount_usd, answer)

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


async def _to_the_end(waiting: Awaitable[HoldAnswer], job: Job, hold: HoldRequest) -> HoldAnswer:
    """Wait for a hold even when cancelled: one that is placed must be released again."""
    future = asyncio.ensure_future(waiting)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        answer = await future
        if answer.outcome is HoldOutcome.PLACED:
            job.calls.append(_void(job, hold))
        raise


def _exceeded(job: Job, amount_usd: Decimal, answer: HoldAnswer) -> BudgetExceeded:
    account = answer.account
    assert account is not None
    return BudgetExceeded(
        f"agent {job.agent.name!r}: the {account.label} is ${account.limit_usd:f}, "
        f"${account.spent_usd:f} are spent, and the next call may cost ${amount_usd:f}: "
        "raise the limit, or lower max_tokens"
    )


def _failed(job: Job, hold: HoldRequest, price: Price, error: ProviderError) -> CallRecord:
    """A failed call costs nothing if the provider says that it failed; else nobody knows."""
    outcome = type(error).__name__
    if not error.reached:
        return _void(job, hold)
    if error.status is None or error.status < 400:
        return _unconfirmed(job, hold, price, outcome)
    return _record(
        job, hold.call_id, price, Decimal(0), outcome=outcome, request_id=error.request_id
    )


def _unconfirmed(job: Job, hold: HoldRequest, price: Price, outcome: str) -> CallRecord:
    return _record(job, hold.call_id, price, hold.amount_usd, kind="unconfirmed", outcome=outcome)


def _void(job: Job, hold: HoldRequest) -> CallRecord:
    """A call that was never made: its hold is released and the ledger says nothing."""
    return _record(job, hold.call_id, None, Decimal(0), kind="void", outcome="not_made")


def _record(
    job: Job,
    call_id: UUID,
    price: Price | None,
    cost_usd: Decimal,
    *,
    kind: Literal["actual", "unconfirmed", "void"] = "actual",
    outcome: str = "ok",
    model_answered: str | None = None,
    request_id: str | None = None,
    usage: Usage | None = None,
    raw_usage: Mapping[str, Any] | None = None,
) -> CallRecord:
    return CallRecord(
        call_id=call_id,
        run_id=job.run.run_id,
        agent_run_id=job.claimed.id,
        attempt=job.claimed.attempt,
        workflow_id=job.run.workflow_id,
        workflow=job.run.workflow.name,
        agent=job.agent.name,
        module=job.agent.module,
        provider=job.agent.provider,
        model=job.agent.model,
        budget_ids=job.run.budget_ids,
        cost_usd=cost_usd,
        kind=kind,
        outcome=outcome,
        model_answered=model_answered,
        request_id=request_id,
        usage=usage or Usage(),
        raw_usage=raw_usage or {},
        price_version=price.version if price else None,
    )

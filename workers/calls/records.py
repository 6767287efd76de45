"""What is booked of a call: one line for the ledger, whatever has become of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from app.costs.price import Price
from app.domain.money import HoldRequest, round_to_ledger
from app.domain.usage import Partial, Usage
from app.errors import ProviderError
from app.llm.base import LLMResponse
from app.rate_limits.base import LimitRequest
from app.storage.records import CallRecord, Kind
from workers.jobs import Job

HTTP_ERROR = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class CallPlan:
    """One call as it is going to be made, and what it needs to be allowed."""

    price: Price
    cache_writes: bool
    parameters: Mapping[str, Any]
    max_tokens: int
    hold: HoldRequest
    limit: LimitRequest
    bound_tokens: int
    guessed_tokens: int
    least_tokens: int


def note_seconds(job: Job, seconds: float) -> None:
    """The call that was noted last took so long."""
    job.calls[-1] = replace(job.calls[-1], seconds=round(seconds, 3))


def answered(job: Job, plan: CallPlan, response: LLMResponse) -> CallRecord:
    """A call that the provider has answered: by its usage, or ours where it tells none."""
    record = _call(job, plan, "actual", "ok", Decimal(0))
    record = replace(record, model_answered=response.model, request_id=response.request_id)
    if response.metadata.get("usage_missing"):
        # Without the provider's own usage the tokens are upper bounds of ours.
        return _estimated(record, plan, response.usage)
    return _counted(record, plan, response.usage, response.raw_usage)


def broken_off(job: Job, plan: CallPlan, outcome: str, came: Partial) -> CallRecord:
    """A streamed answer that nobody saw the end of: what was generated until then is billed."""
    record = _call(job, plan, "actual", outcome, Decimal(0))
    record = replace(record, model_answered=came.model, request_id=came.request_id)
    if came.final:
        return _counted(record, plan, came.usage, came.raw_usage)
    if came.prompt_counted:
        counted = _counted(record, plan, came.usage, came.raw_usage)
        return replace(counted, kind="estimated")
    return _estimated(record, plan, came.usage)


def _counted(
    record: CallRecord, plan: CallPlan, usage: Usage, raw_usage: Mapping[str, Any]
) -> CallRecord:
    return replace(
        record,
        cost_usd=round_to_ledger(plan.price.cost(usage)),
        usage=usage,
        raw_usage=raw_usage,
        saved_usd=round_to_ledger(plan.price.saving(usage)),
    )


def _estimated(record: CallRecord, plan: CallPlan, usage: Usage) -> CallRecord:
    """Book a prompt that the provider has not counted as the dearest that it can have been.

    The tokens are booked as what makes them so dear, so that pricing the entry again finds the
    same cost.
    """
    prompt_tokens = usage.prompt_tokens
    parts = ["input_tokens"]
    if plan.cache_writes:
        parts += ["cache_write_tokens", "cache_write_1h_tokens"]
    elif plan.price.writes_unasked:
        parts.append("cache_write_tokens")
    rest = Usage(output_tokens=usage.output_tokens, reasoning_tokens=usage.reasoning_tokens)
    dearest = max((replace(rest, **{part: prompt_tokens}) for part in parts), key=plan.price.cost)
    cost_usd = round_to_ledger(plan.price.cost(dearest))
    return replace(record, kind="estimated", cost_usd=cost_usd, usage=dearest)


def refused(job: Job, plan: CallPlan, error: ProviderError) -> CallRecord:
    """A call that failed costs nothing if the provider itself says so; else nobody knows."""
    if not error.reached:
        return void(job, plan)
    if error.status is None or error.status < HTTP_ERROR:
        return unconfirmed(job, plan, type(error).__name__)
    free = _call(job, plan, "actual", type(error).__name__, Decimal(0))
    return replace(free, request_id=error.request_id)


def unconfirmed(job: Job, plan: CallPlan, outcome: str) -> CallRecord:
    """A call that may have reached the provider and been billed: the worst case."""
    return _call(job, plan, "unconfirmed", outcome, plan.hold.amount_usd)


def void(job: Job, plan: CallPlan) -> CallRecord:
    """A call that was never made: its hold is released and the ledger says nothing."""
    return _call(job, plan, "void", "not_made", Decimal(0))


def _call(job: Job, plan: CallPlan, kind: Kind, outcome: str, cost_usd: Decimal) -> CallRecord:
    return CallRecord(
        call_id=plan.hold.call_id,
        run_id=job.run.run_id,
        agent_run_id=job.claimed.id,
        attempt=job.claimed.attempt,
        workflow_id=job.run.workflow_id,
        workflow=job.run.workflow.name,
        version=job.run.version,
        tenant=job.run.tenant,
        agent=job.agent.name,
        module=job.agent.module,
        provider=job.agent.provider,
        model=job.agent.model,
        budget_ids=job.run.budget_ids,
        cost_usd=cost_usd,
        kind=kind,
        outcome=outcome,
        price_version=plan.price.version,
        expected_tokens=plan.limit.input_tokens,
        bound_tokens=plan.bound_tokens,
    )

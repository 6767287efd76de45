"""The cost entry of a call: one line for the ledger, however the call has ended.

The price depends on the model that has answered, and on the service tier, the speed and the region
with which the provider served the call. If the answer does not state these facts, or if a stated
fact has no price, the entry is an estimate at the most expensive price that may apply. If no price
is known for the model that has answered, the entry is also at least the hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from uuid_utils.compat import uuid7

from app.costs.price import Price
from app.domain.money import HoldRequest, round_to_ledger
from app.domain.usage import Partial, Usage, served_by
from app.errors import ProviderError
from app.llm.base import LLMResponse
from app.llm.usage import dated_writes
from app.planning.calls import CallPlan
from app.rate_limits.base import LimitRequest
from app.storage.records import CallRecord, Kind
from workers.calls.base import CallRequest

HTTP_ERROR = 400
#: The counts of tokens that were written to a cache.
WRITES = ("cache_write_tokens", "cache_write_1h_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedCall:
    """A call that is about to be made, with its plan, hold and limits."""

    request: CallRequest
    plan: CallPlan
    hold: HoldRequest
    limit: LimitRequest


def answered(call: PreparedCall, response: LLMResponse, seconds: float) -> CallRecord:
    """Book an answered call by the provider's usage, or by upper bounds if the usage is missing."""
    record = _record(call, "actual", "ok", seconds=seconds)
    facts = response.metadata
    record = replace(
        record,
        model_answered=response.model,
        request_id=response.request_id,
        served=served_by(facts),
        finish_reason=response.finish_reason,
    )
    if facts.get("usage_missing") and call.plan.server_uses.uses:
        return _at_most(record, call)
    if facts.get("usage_missing") and not facts.get("prompt_counted"):
        # Without usage from the provider, the tokens are the upper bounds of the plan.
        return _estimated(record, call, response.usage)
    counted = _counted(record, call, response.usage, response.raw_usage)
    return replace(counted, kind="estimated") if facts.get("usage_missing") else counted


def failed(
    call: PreparedCall, error: BaseException, came: Partial | None, seconds: float
) -> CallRecord:
    """Book a call without an answer, by the error and by the part of the stream that arrived."""
    outcome = type(error).__name__
    if came is not None:
        return _broken_off(_record(call, "actual", outcome, seconds=seconds), call, came)
    if not isinstance(error, ProviderError):
        return _unconfirmed(call, outcome, seconds)
    if not error.reached:
        return replace(void(call), seconds=seconds)
    if error.status is None or error.status < HTTP_ERROR:
        return _unconfirmed(call, outcome, seconds)
    # The provider itself reports the failure, so the call costs nothing.
    free = _record(call, "actual", outcome, seconds=seconds)
    return replace(free, request_id=error.request_id)


def void(call: PreparedCall) -> CallRecord:
    """Release the hold of a call that was never made; the ledger gets no entry."""
    return _record(call, "void", "not_made")


def shared(request: CallRequest, price: Price, answer: LLMResponse) -> CallRecord:
    """Book an answer from the cache: the entry has no cost, but a saved cost."""
    return CallRecord(
        **_owner(request),
        call_id=uuid7(),
        model_answered=answer.model,
        cost_usd=Decimal(0),
        saved_usd=round_to_ledger(price.cost(answer.usage)),
        kind="cached",
        price_version=price.version,
        finish_reason=answer.finish_reason,
    )


def _broken_off(record: CallRecord, call: PreparedCall, came: Partial) -> CallRecord:
    """Book a stream that broke off; the provider bills the part that was generated."""
    record = replace(
        record, model_answered=came.model, request_id=came.request_id, served=came.served
    )
    if came.final:
        return _counted(record, call, came.usage, came.raw_usage)
    if call.plan.server_uses.uses:
        return _at_most(record, call)
    if came.prompt_counted:
        counted = _counted(record, call, came.usage, came.raw_usage)
        return replace(counted, kind="estimated")
    return _estimated(record, call, came.usage)


def _counted(
    record: CallRecord, call: PreparedCall, usage: Usage, raw_usage: Mapping[str, Any]
) -> CallRecord:
    if call.plan.writes_for_an_hour:
        usage = _for_an_hour(usage, usage.cache_write_tokens - dated_writes(raw_usage))
    quote = call.plan.quote_answered(record.model_answered)
    price, certain = quote.settle(usage, record.served or {})
    cost_usd = quote.booked_usd(price, usage, call.hold.amount_usd)
    return replace(
        record,
        kind="actual" if certain else "estimated",
        cost_usd=round_to_ledger(cost_usd),
        usage=usage,
        raw_usage=raw_usage,
        saved_usd=round_to_ledger(price.saving(usage)),
        price_version=price.version,
    )


def _estimated(record: CallRecord, call: PreparedCall, usage: Usage) -> CallRecord:
    """Book a prompt that the provider has not counted, at the highest price that may apply.

    The prompt's tokens are booked as tokens of the sort that has this price. So a later pricing of
    the entry finds the same cost. The cost is at least the cost of the parts that the provider has
    counted, even if these parts are larger than the upper bound of the prompt.
    """
    plan = call.plan
    told = usage.prompt_tokens - usage.input_tokens
    # The client knows only the bytes; the provider may have counted the prompt before the call.
    rest_tokens = min(usage.input_tokens, max(plan.bound_tokens - told, 0))
    prompt_tokens = told + rest_tokens
    parts = ["input_tokens"]
    if plan.cache_writes:
        parts += WRITES
    elif plan.price.writes_unasked:
        parts.append("cache_write_tokens")
    as_told = replace(usage, input_tokens=rest_tokens)
    if plan.writes_for_an_hour:
        as_told = _for_an_hour(as_told, as_told.cache_write_tokens)
    none = dict.fromkeys(("input_tokens", "cached_tokens", *WRITES), 0)
    usages = [as_told, *(replace(as_told, **none | {part: prompt_tokens}) for part in parts)]
    quote = plan.quote_answered(record.model_answered)
    held_usd, served = call.hold.amount_usd, record.served or {}
    costs = [quote.booked_usd(quote.settle(one, served).price, one, held_usd) for one in usages]
    most_usd, most = max(zip(costs, usages, strict=True), key=lambda pair: pair[0])
    return replace(record, kind="estimated", cost_usd=round_to_ledger(most_usd), usage=most)


def _for_an_hour(usage: Usage, tokens: int) -> Usage:
    """Count written tokens without a lifetime as kept for an hour, as the request has asked."""
    return replace(
        usage,
        cache_write_tokens=usage.cache_write_tokens - max(tokens, 0),
        cache_write_1h_tokens=usage.cache_write_1h_tokens + max(tokens, 0),
    )


def _unconfirmed(call: PreparedCall, outcome: str, seconds: float) -> CallRecord:
    """Book the worst case of a call that the provider may have received and billed."""
    return _at_most(_record(call, "unconfirmed", outcome, seconds=seconds), call)


def _at_most(record: CallRecord, call: PreparedCall) -> CallRecord:
    """Book the worst case.

    Tools of the provider add tokens to the prompt. Only the final usage contains these tokens. So
    earlier counts are no estimate of such a call.
    """
    return replace(record, kind="unconfirmed", cost_usd=call.hold.amount_usd)


def _record(
    call: PreparedCall, kind: Kind, outcome: str, *, seconds: float | None = None
) -> CallRecord:
    return CallRecord(
        **_owner(call.request),
        call_id=call.hold.call_id,
        cost_usd=Decimal(0),
        kind=kind,
        outcome=outcome,
        price_version=call.plan.price.version,
        seconds=None if seconds is None else round(seconds, 3),
        expected_tokens=call.limit.input_tokens,
        bound_tokens=call.plan.bound_tokens,
    )


def _owner(request: CallRequest) -> dict[str, Any]:
    """Return the columns that identify the agent run of a call."""
    run, claimed, agent = request.job.run, request.job.claimed, request.agent
    return {
        "run_id": run.run_id,
        "agent_run_id": claimed.id,
        "attempt": claimed.attempt,
        "workflow_id": run.workflow_id,
        "workflow": run.workflow.name,
        "version": run.version,
        "tenant": run.tenant,
        "agent": agent.name,
        "module": agent.module,
        "provider": agent.provider,
        "model": agent.model,
        "budget_ids": run.budget_ids,
    }

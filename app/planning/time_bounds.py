"""The shortest possible time of a run, from the rate limits and from the latency of calls.

The bounds assume that no other run uses the limits. If a bucket refills, it grants an amount after
(amount - burst) / rate seconds or later. The order of the calls makes no difference. The levels of
a run follow each other. The largest of these bounds is the binding bound.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.domain.policies import RateLimitConfig
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.planning.figures import AgentForecast, ExpectedCall, Forecast
from app.rate_limits.base import LimitRequest
from app.rate_limits.charges import charged_amounts
from app.rate_limits.tiers import MINUTE_S, BucketSpec, Tier, spec_of

#: A function that returns the name and the limits of a bucket, from a provider and a model.
BucketOf = Callable[[str, str], tuple[str, RateLimitConfig]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeBound:
    """A lower bound of a run's time, and the cause of the bound.

    Attributes:
        bucket: Name of the bucket, or ``run``.
        limit: Name of the limit in the configuration.
        allowed: Value of the limit.
        amount: Amount that the run takes from the limit.
        seconds: Shortest time in which the limit allows this amount.
    """

    bucket: str
    limit: str
    allowed: float
    amount: float
    seconds: float


def time_bounds(
    forecast: Forecast,
    bucket_of: BucketOf,
    *,
    max_parallel_agents: int,
    latency_s: float | None,
    providers: Sequence[Provider] = BUILT_IN,
) -> list[TimeBound]:
    """Compute all bounds; the binding bound comes first.

    Args:
        forecast: The forecast of the run.
        bucket_of: Function that returns the bucket of a provider's model.
        max_parallel_agents: Agents of the run that may be in progress at once.
        latency_s: Seconds that a call takes. None means that no bound uses this time.
        providers: The providers of this cluster.
    """
    calls: dict[BucketSpec, list[tuple[AgentForecast, ExpectedCall]]] = defaultdict(list)
    for agent in forecast.agents:
        if agent.calls:
            bucket, config = bucket_of(agent.provider, agent.model)
            calls[spec_of(bucket, config)] += [(agent, call) for call in agent.calls]
    bounds = [
        bound
        for spec, made in calls.items()
        for bound in _of_bucket(spec, made, latency_s, providers)
    ]
    if latency_s is not None:
        bounds += _of_levels(forecast, max_parallel_agents, latency_s)
    return sorted(bounds, key=lambda bound: -bound.seconds)


def _of_bucket(
    spec: BucketSpec,
    made: list[tuple[AgentForecast, ExpectedCall]],
    latency_s: float | None,
    providers: Sequence[Provider],
) -> list[TimeBound]:
    totals = [0.0] * len(spec.tiers)
    for agent, call in made:
        request = LimitRequest(
            provider=agent.provider,
            model=agent.model,
            counting=protocol_of(agent.provider, providers).counting,
            run_id="",
            input_tokens=call.usage.input_tokens,
            output_tokens=call.max_tokens,
        )
        charged = charged_amounts(request, call.usage, spec)
        totals = [total + amount for total, amount in zip(totals, charged, strict=True)]
    bounds = [
        TimeBound(
            bucket=spec.bucket,
            limit=_configured_name(tier),
            allowed=tier.limit,
            amount=total,
            seconds=_least_s(tier, total),
        )
        for tier, total in zip(spec.tiers, totals, strict=True)
    ]
    if spec.concurrency and latency_s is not None:
        bounds.append(
            TimeBound(
                bucket=spec.bucket,
                limit="concurrent_requests",
                allowed=spec.concurrency,
                amount=len(made),
                seconds=latency_s * max(len(made) / spec.concurrency, 1.0),
            )
        )
    return bounds


def _least_s(tier: Tier, amount: float) -> float:
    if tier.kind == "window":
        return max(-(-amount // tier.capacity) - 1, 0.0) * tier.window_s
    return max(amount - tier.capacity, 0.0) / tier.rate


def _of_levels(forecast: Forecast, max_parallel_agents: int, latency_s: float) -> list[TimeBound]:
    levels = forecast.levels()
    longest = [max(agent.in_a_row for agent in level) for level in levels]
    in_places = sum(
        max(sum(len(agent.calls) for agent in level) / max_parallel_agents, least)
        for level, least in zip(levels, longest, strict=True)
    )
    facts = (
        ("levels", float(len(levels)), float(sum(longest))),
        ("max_parallel_agents", float(max_parallel_agents), float(in_places)),
    )
    return [
        TimeBound(
            bucket="run", limit=limit, allowed=allowed, amount=calls, seconds=calls * latency_s
        )
        for limit, allowed, calls in facts
    ]


def _configured_name(tier: Tier) -> str:
    return f"{tier.name}_per_minute" if tier.period_s == MINUTE_S else tier.name

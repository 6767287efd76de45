"""The amounts that a call takes from each tier: estimates before the call, corrections afterwards.

Providers count differently (``app.domain.protocols.TokenCounting``). Under OpenAI's protocol a
provider reserves the larger of two numbers (the tokens of the prompt and ``max_tokens``), and does
not give back the unused part. Under Anthropic's protocol a provider counts the real output, and
counts only the part of the prompt that was not read from a cache.
"""

from app.domain.protocols import TokenCounting
from app.domain.usage import Usage
from app.rate_limits.base import LimitRequest, Permit
from app.rate_limits.tiers import BucketSpec, Tier

#: Cost of every call, in seconds of the bucket, if the bucket has no limit except the concurrency.
_EQUAL_COST_S = 0.001


def counts_real_output(tier: Tier, counting: TokenCounting) -> bool:
    """Return whether a tier counts the generated output instead of the reserved output."""
    return tier.name == "output_tokens" or (tier.name == "tokens" and not counting.reserves_output)


def expected_amounts(
    request: LimitRequest, spec: BucketSpec, output_tokens: float
) -> tuple[float, ...]:
    """Return the amount to take from each tier.

    An amount is never larger than the tier's capacity, so that the request can be granted.

    Args:
        request: The call.
        spec: The bucket's limits.
        output_tokens: Length of the answer, for the tiers that count real output.
    """
    return tuple(min(_expected(request, tier, output_tokens), tier.capacity) for tier in spec.tiers)


def too_large(request: LimitRequest, spec: BucketSpec) -> tuple[Tier, float] | None:
    """Return the tier that is too small for a call, and the call's amount; None if the call fits.

    If a tier counts real output, the answer is not included, because the length of the answer is
    not known.
    """
    for tier in spec.tiers:
        amount = 0.0 if tier.in_requests else _expected(request, tier, 0.0)
        if amount > tier.limit:
            return tier, amount
    return None


def cost_s(amounts: tuple[float, ...], spec: BucketSpec) -> float:
    """Return the share of the bucket that the amounts take, in seconds of the scarcest tier."""
    return max(
        (amount / tier.rate for amount, tier in zip(amounts, spec.tiers, strict=True)),
        default=_EQUAL_COST_S,
    )


def returned_amounts(permit: Permit, usage: Usage | None) -> tuple[float, ...]:
    """Return the amount that each tier gets back; below 0 if the call used more than expected.

    Args:
        permit: The permit of the call.
        usage: Usage of the call. None means that the usage is unknown, so the estimate stays. Zero
            tokens mean that the call never reached the provider, so every tier gets everything
            back.
    """
    if usage is None:
        return (0.0,) * len(permit.taken)
    if usage.total_tokens == 0:
        return permit.taken
    return tuple(
        0.0 if tier.in_requests else taken - _actual(permit.request, usage, tier)
        for taken, tier in zip(permit.taken, permit.spec.tiers, strict=True)
    )


def charged_amounts(request: LimitRequest, usage: Usage, spec: BucketSpec) -> tuple[float, ...]:
    """Return the amount that a call with this usage finally takes from each tier."""
    return tuple(1.0 if tier.in_requests else _actual(request, usage, tier) for tier in spec.tiers)


def _expected(request: LimitRequest, tier: Tier, output_tokens: float) -> float:
    if tier.in_requests:
        return 1.0
    if tier.name == "input_tokens":
        return float(request.input_tokens)
    if tier.name == "output_tokens":
        return output_tokens
    if counts_real_output(tier, request.counting):
        return request.input_tokens + output_tokens
    return float(max(request.input_tokens, request.output_tokens))


def _actual(request: LimitRequest, usage: Usage, tier: Tier) -> float:
    prompt = usage.prompt_tokens
    if not request.counting.counts_cached:
        prompt -= usage.cached_tokens
    if tier.name == "input_tokens":
        return float(prompt)
    if tier.name == "output_tokens":
        return float(usage.output_tokens)
    if counts_real_output(tier, request.counting):
        return float(prompt + usage.output_tokens)
    return float(max(prompt, request.output_tokens))

"""What a call counts against each tier: expected before it, corrected after it.

Providers count differently (``app.domain.protocols.TokenCounting``). OpenAI's protocol reserves the
larger of the prompt and ``max_tokens`` and does not give the unused part back; Anthropic's counts
prompts without what its cache held, and real output.
"""

from app.domain.protocols import TokenCounting
from app.domain.usage import Usage
from app.rate_limits.base import LimitRequest, Permit
from app.rate_limits.tiers import BucketSpec, Tier

#: Cost, in seconds of the bucket, where only concurrency is limited: all calls cost the same.
_EQUAL_COST_S = 0.001


def counts_real_output(tier: Tier, counting: TokenCounting) -> bool:
    """Return whether a tier counts the generated output, not what the request reserves for it."""
    return tier.name == "output_tokens" or (tier.name == "tokens" and not counting.reserves_output)


def expected_amounts(
    request: LimitRequest, spec: BucketSpec, output_tokens: float
) -> tuple[float, ...]:
    """Return what to take from each tier; never more than a tier holds, so that it can be granted.

    Args:
        request: The call.
        spec: The bucket's limits.
        output_tokens: Length of the answer, where real output counts.
    """
    return tuple(min(_expected(request, tier, output_tokens), tier.capacity) for tier in spec.tiers)


def too_large(request: LimitRequest, spec: BucketSpec) -> tuple[Tier, float] | None:
    """Return the limit that a call can never fit into, and what it needs there; None if it fits.

    Where real output counts, the length of the answer is not known and left out.
    """
    for tier in spec.tiers:
        amount = 0.0 if tier.in_requests else _expected(request, tier, 0.0)
        if amount > tier.limit:
            return tier, amount
    return None


def cost_s(amounts: tuple[float, ...], spec: BucketSpec) -> float:
    """Return the share of the bucket that the amounts are, in seconds of its scarcest tier."""
    return max(
        (amount / tier.rate for amount, tier in zip(amounts, spec.tiers, strict=True)),
        default=_EQUAL_COST_S,
    )


def returned_amounts(permit: Permit, usage: Usage | None) -> tuple[float, ...]:
    """Return what each tier gets back once the real usage is known; negative where it was exceeded.

    Args:
        permit: The permit of the call.
        usage: Its usage; None if unknown: the estimate stands. No tokens at all means that the
            call never reached the provider: everything comes back.
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
    """Return what a call of this usage counts against each tier in the end."""
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

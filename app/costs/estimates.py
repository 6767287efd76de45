"""The quality of token estimates: the expected tokens of prompts beside the counted tokens.

Before a call is made, the call takes the expected number of tokens from the token limits. The hold
of the call is calculated from the upper bound.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

READ: TextClause = text("""
    SELECT provider, model,
        sum(calls)::bigint AS calls, sum(prompt_tokens)::bigint AS prompt_tokens,
        round(100 * (sum(expected_tokens) / sum(prompt_tokens) - 1), 1) AS bias_percent,
        round(100 * sum(error_tokens) / sum(prompt_tokens), 1) AS error_percent,
        round(sum(bound_tokens) / sum(prompt_tokens), 2) AS bound_factor,
        max(most_of_bound) AS most_of_bound, sum(above_bound)::bigint AS above_bound
    FROM token_estimates WHERE CAST(:since AS date) IS NULL OR day >= :since
    GROUP BY provider, model ORDER BY 3 DESC, 1, 2
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateLine:
    """The estimates of one model, beside the prompts that its provider counted.

    Attributes:
        provider: Provider name.
        model: Model name.
        calls: Number of calls with an estimate and a count.
        prompt_tokens: Counted tokens of the prompts of these calls.
        bias_percent: Percentage by which the sum of the estimates is above the counted tokens;
            negative if the sum is below them.
        error_percent: Average difference between estimate and count, up or down, in percent.
        bound_factor: Sum of the upper bounds divided by the counted tokens.
        most_of_bound: Largest part of an upper bound that a prompt has used; 1 is the whole bound.
        above_bound: Number of prompts above their upper bound; every such case is a defect of the
            estimate.
    """

    provider: str
    model: str
    calls: int
    prompt_tokens: int
    bias_percent: Decimal
    error_percent: Decimal
    bound_factor: Decimal
    most_of_bound: Decimal
    above_bound: int


async def read_estimates(
    connection: AsyncConnection, *, since: date | None = None
) -> list[EstimateLine]:
    """Read the estimates by model, the model with the most calls first.

    Args:
        connection: Connection inside a transaction.
        since: First day (UTC) of the calls to read; None means all calls.
    """
    rows = await connection.execute(READ, {"since": since})
    return [EstimateLine(**row) for row in rows.mappings()]

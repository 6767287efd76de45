"""The quality of token estimates: the tokens expected of prompts beside those that were counted.

A call takes the expected number from a token limit before it is made; its hold is computed from the
upper bound.
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
        calls: Calls that were counted.
        prompt_tokens: Tokens of their prompts.
        bias_percent: How much more than that was expected in all; negative: less.
        error_percent: How far the expected numbers were off on average, up or down.
        bound_factor: Upper bounds over real tokens: how much more was held than needed.
        most_of_bound: Largest part of its upper bound that a prompt has had; 1 is all of it.
        above_bound: Prompts above their upper bound; each is a defect of the estimate.
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
    """Read the estimates by model, most calls first.

    Args:
        connection: Inside a transaction.
        since: Only calls from this day (UTC) on, or None for all.
    """
    rows = await connection.execute(READ, {"since": since})
    return [EstimateLine(**row) for row in rows.mappings()]

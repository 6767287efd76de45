"""Tools of the examples. Workers load these tools if this module is listed under ``imports:``."""

from typing import TypedDict

from app.tools.tool import tool

TOLERANCE = 0.01


class Arithmetic(TypedDict):
    """Result of ``check_total``."""

    expected_total: float
    stated_total: float
    correct: bool


@tool(idempotent=True)
def check_total(quantity: float, unit_price: float, total: float) -> Arithmetic:
    """Check the arithmetic of an order line.

    Args:
        quantity: Number of pieces.
        unit_price: Price of one piece.
        total: Total price as the order states it.
    """
    expected = round(quantity * unit_price, 2)
    return {
        "expected_total": expected,
        "stated_total": total,
        "correct": abs(expected - total) <= TOLERANCE,
    }

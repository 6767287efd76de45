"""The functions that the function agents of the examples call."""

import asyncio
from decimal import Decimal

from pydantic import BaseModel


class Line(BaseModel):
    """A line of an invoice."""

    item: str
    quantity: int
    price: Decimal


class Totals(BaseModel):
    """Sums over the lines of an invoice."""

    net: Decimal
    tax: Decimal
    gross: Decimal


def totals(lines: list[Line], tax_rate: Decimal = Decimal("0.19")) -> Totals:
    """Add up the lines of an invoice."""
    net = sum((line.quantity * line.price for line in lines), Decimal(0))
    tax = (net * tax_rate).quantize(Decimal("0.01"))
    return Totals(net=net, tax=tax, gross=net + tax)


async def credit_score(customer: str) -> int:
    """Return a customer's score after a short delay, which imitates a remote service."""
    await asyncio.sleep(0.01)
    return 500 + sum(customer.encode()) % 350

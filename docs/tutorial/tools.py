"""The tool of the mail workflow. Workers load this module."""

import json

from app import tool

with open("orders.json") as file:
    ORDERS = json.load(file)


@tool(idempotent=True)
def find_order(number: str) -> dict[str, str]:
    """Find an order by its number, such as AC-1001."""
    return ORDERS.get(number, {"state": "there is no such order"})

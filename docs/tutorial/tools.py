"""The tool of the mail workflow; workers load this module."""

import json
from pathlib import Path

from app import tool

ORDERS = json.loads(Path(__file__).with_name("orders.json").read_text())


@tool(idempotent=True)
def find_order(number: str) -> dict[str, str]:
    """Find an order by its number, such as AC-1001."""
    return ORDERS.get(number, {"state": "there is no such order"})

"""A made-up call, in the form in which the ledger and the metrics get calls."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from app.storage.records import CallRecord
from tests.support.jobs import ID


def call_of(model: str, **fields: Any) -> CallRecord:
    """Return a call that cost a cent and took a second."""
    made = CallRecord(
        call_id=ID,
        run_id=ID,
        agent_run_id=ID,
        attempt=1,
        workflow_id=ID,
        workflow="w",
        agent="a",
        module="General",
        provider="openai",
        model=model,
        budget_ids=(),
        cost_usd=Decimal("0.01"),
        seconds=1.0,
    )
    return replace(made, **fields)

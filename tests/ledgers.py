"""Compares the ledger in Postgres with what the simulator says it served, line by line."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from app.costs.pricing import Pricing
from app.domain.money import round_to_ledger
from app.domain.usage import Usage

Row = Mapping[str, Any]
# What the daily totals and the ledger itself say differently; no row when all is right.
DIFFERENT_TOTALS = """
    WITH summed AS (
        SELECT day, tenant, workflow, version, module, provider, model, kind, outcome,
            sum(calls)::bigint AS calls, sum(prompt_tokens)::bigint AS prompt_tokens,
            sum(cached_tokens)::bigint AS cached_tokens,
            sum(cache_write_tokens)::bigint AS cache_write_tokens,
            sum(output_tokens)::bigint AS output_tokens,
            sum(reasoning_tokens)::bigint AS reasoning_tokens, sum(cost_usd) AS cost_usd,
            sum(wasted_usd) AS wasted_usd, sum(unconfirmed_usd) AS unconfirmed_usd,
            sum(saved_usd) AS saved_usd
        FROM cost_lines GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    )
    (TABLE summed EXCEPT TABLE costs_daily) UNION ALL (TABLE costs_daily EXCEPT TABLE summed)
"""
CLIENT_LEFT = 499
FIRST_ERROR = 400


def assert_ledgers_agree(entries: Sequence[Row], served: Sequence[Row]) -> None:
    """Every answered request has its entry, token for token and dollar for dollar, and vice versa.

    Args:
        entries: Rows of cost_entries.
        served: Records of the simulator.

    Raises:
        AssertionError: If they differ.
    """
    actual = {entry["request_id"]: entry for entry in entries if entry["kind"] == "actual"}
    answered = {record["request_id"]: record for record in served if _was_answered(record)}
    assert actual.keys() == answered.keys()
    for request_id, record in answered.items():
        assert _facts_of_entry(actual[request_id]) == _facts_of_record(record)
    unconfirmed = [entry for entry in entries if entry["kind"] == "unconfirmed"]
    lost = [record for record in served if not _was_answered(record)]
    # A call that was cancelled on its way may never have arrived.
    assert len(unconfirmed) >= len(lost)
    assert sum(entry["cost_usd"] for entry in unconfirmed) >= sum(map(_dollars, lost))


def _was_answered(record: Row) -> bool:
    if record["status"] in (None, 0, CLIENT_LEFT):
        return False
    return bool(record["finished"]) and record["fault"] != "garbage"


def _facts_of_entry(entry: Row) -> tuple[Any, ...]:
    prompt = sum(
        entry[f"{part}_tokens"] for part in ("input", "cached", "cache_write", "cache_write_1h")
    )
    return (
        entry["provider"],
        entry["model"],
        entry["outcome"] == "ok",
        prompt,
        entry["cached_tokens"],
        entry["output_tokens"],
        entry["cost_usd"],
    )


def _facts_of_record(record: Row) -> tuple[Any, ...]:
    return (
        record["provider"],
        record["model"],
        record["status"] < FIRST_ERROR,
        record["input_tokens"],
        record["cached_tokens"],
        record["output_tokens"],
        _dollars(record),
    )


def _dollars(record: Row) -> Decimal:
    if not record["model"]:
        return Decimal(0)
    written, cached = record["cache_write_tokens"], record["cached_tokens"]
    usage = Usage(
        input_tokens=record["input_tokens"] - cached - written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=record["output_tokens"],
    )
    pricing = Pricing()
    price = pricing.price_of(record["provider"], record["model"])
    return round_to_ledger(price.cost(usage))

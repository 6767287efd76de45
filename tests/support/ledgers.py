"""Compares the ledger in Postgres with the simulator's ledger, line by line."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from app.configuration.settings import load_settings
from app.costs.pricing import Pricing
from app.domain.money import round_to_ledger

Row = Mapping[str, Any]
# The differences between the daily totals and the ledger; without differences, no row.
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
# Dollars per million tokens: input, cached input, cache write, output. They were copied from
# developers.openai.com/api/docs/pricing and platform.claude.com/docs/en/about-claude/pricing, so
# that these prices check the application's prices and arithmetic independently.
PRICES = {
    "openai/gpt-4": ("30", "30", "37.50", "60"),
    "openai/gpt-4o": ("2.50", "1.25", "3.125", "10"),
    "openai/gpt-4o-mini": ("0.15", "0.075", "0.1875", "0.60"),
    "openai/gpt-6.1-terra": ("1", "0.05", "1.25", "5"),
    "anthropic/claude-haiku-4-5": ("1", "0.10", "1.25", "5"),
    "anthropic/claude-sonnet-4-5": ("3", "0.30", "3.75", "15"),
    "anthropic/claude-sonnet-5": ("2", "0.20", "2.50", "10"),
}
# Dollars per search of the web, at both providers.
SEARCH_USD = Decimal("0.01")
# Dollars per hour of a container, by provider: of 1 GB at OpenAI ($0.03 for 20 minutes).
CONTAINER_HOUR_USD = {"openai": Decimal("0.09"), "anthropic": Decimal("0.05")}
GUESSES = ("unconfirmed", "estimated")
CLIENT_LEFT = 499
FIRST_ERROR = 400


def assert_ledgers_agree(
    entries: Sequence[Row], served: Sequence[Row], *, cut: bool = False
) -> None:
    """Check that answered requests and entries agree, token for token and dollar for dollar.

    A call with unknown usage has an estimate, which is never below the served usage; so has a call
    with a container, because no answer tells its time. A stream that
    broke off has the provider's usage if this usage had arrived; otherwise it has an estimate.

    Args:
        entries: Rows of cost_entries.
        served: Records of the simulator.
        cut: Whether calls were closed that the provider may have answered at the same moment. Such
            calls have an estimate.

    Raises:
        AssertionError: If the two ledgers differ.
    """
    actual = [entry for entry in entries if entry["kind"] == "actual"]
    known = {entry["call_id"] for entry in actual}
    guesses = [e for e in entries if e["kind"] in GUESSES and e["call_id"] not in known]
    guessed = {e["request_id"] for e in guesses} - {None}
    counted = {entry["request_id"] for entry in actual}
    answered = [
        r
        for r in served
        if (_was_answered(r) and r["request_id"] not in guessed) or r["request_id"] in counted
    ]
    if cut:
        answered = [record for record in answered if record["request_id"] in counted]
    assert _by_request(actual, _facts_of_entry) == _by_request(answered, _facts_of_record)
    assert sum(entry["cost_usd"] for entry in actual) == sum(map(dollars_of, answered))
    for entry in actual:
        _assert_complete(entry)
    by_request = {record["request_id"]: record for record in served}
    for guess in guesses:
        if guess["request_id"]:
            _assert_never_below(guess, by_request[guess["request_id"]])
    rest = [record for record in served if record not in answered]
    # If a call was cancelled on its way, it may never have arrived.
    assert len(guesses) >= len(rest)
    assert sum(entry["cost_usd"] for entry in guesses) >= sum(map(dollars_of, rest))


def dollars_of(record: Row) -> Decimal:
    """Return the provider's bill for a request to the simulator; an error costs nothing."""
    if not record["model"]:
        return Decimal(0)
    written, cached = record["cache_write_tokens"], record["cached_tokens"]
    fresh = record["input_tokens"] - cached - written
    rates = _per_million(record["provider"], record["model"])
    parts = zip((fresh, cached, written, record["output_tokens"]), rates, strict=True)
    tokens_usd = sum((n * rate for n, rate in parts), Decimal(0)) / 1_000_000
    hour_usd = CONTAINER_HOUR_USD.get(record["provider"], Decimal(0))
    containers_usd = record["container_seconds"] * hour_usd / 3600
    return round_to_ledger(tokens_usd + record["web_searches"] * SEARCH_USD + containers_usd)


def _per_million(provider: str, model: str) -> list[Decimal]:
    if written_down := PRICES.get(f"{provider}/{model}"):
        return [Decimal(rate) for rate in written_down]
    # A model that only the test knows, such as sim-1, has the prices of the test's configuration.
    price = Pricing(load_settings().costs).price_of(provider, model)
    rates = (price.input, price.cached_input, price.cache_write, price.output)
    return [rate * 1_000_000 for rate in rates]


def _by_request(rows: Sequence[Row], facts: Callable[[Row], tuple[Any, ...]]) -> dict[str, Any]:
    found = {row["request_id"]: facts(row) for row in rows}
    assert len(found) == len(rows), "a request has two entries"
    return found


def _was_answered(record: Row) -> bool:
    if record["status"] in (None, 0, CLIENT_LEFT):
        return False
    return bool(record["finished"]) and record["fault"] != "garbage"


def _assert_complete(entry: Row) -> None:
    """Check the facts of a call whose answer arrived."""
    missing = [name for name in ("module", "price_version", "request_id") if not entry[name]]
    if entry["outcome"] == "ok":
        missing += [name for name in ("model_answered", "usage") if not entry[name]]
    assert missing == []
    assert entry["attempt"] >= 1


def _assert_never_below(guess: Row, record: Row) -> None:
    """Check that the entry of a stream that broke off covers the part that was sent."""
    assert guess["cost_usd"] >= dollars_of(record)
    if guess["kind"] == "unconfirmed":
        return
    assert guess["output_tokens"] >= record["output_tokens"]
    assert _prompt_tokens(guess) >= record["input_tokens"]
    assert guess["container_seconds"] >= record["container_seconds"]


def _prompt_tokens(entry: Row) -> int:
    written: int = entry["cache_write_tokens"] + entry["cache_write_1h_tokens"]
    prompt_tokens: int = entry["input_tokens"] + entry["cached_tokens"] + written
    return prompt_tokens


def _facts_of_entry(entry: Row) -> tuple[Any, ...]:
    written = entry["cache_write_tokens"] + entry["cache_write_1h_tokens"]
    return (
        entry["provider"],
        entry["model"],
        # If a stream broke off after its usage, the provider counts the request as answered.
        entry["outcome"] == "ok" or bool(entry["usage"]),
        _prompt_tokens(entry),
        entry["cached_tokens"],
        written,
        entry["output_tokens"],
        entry["web_searches"],
        entry["container_seconds"],
        entry["cost_usd"],
    )


def _facts_of_record(record: Row) -> tuple[Any, ...]:
    return (
        record["provider"],
        record["model"],
        record["status"] < FIRST_ERROR,
        record["input_tokens"],
        record["cached_tokens"],
        record["cache_write_tokens"],
        record["output_tokens"],
        record["web_searches"],
        record["container_seconds"],
        dollars_of(record),
    )

"""`agentchord prices`: the price of each model's tokens, and the source of that price."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer

from app.cli.output import answer
from app.cli.parameters import Wide
from app.cli.tables import Table, note, number, table, words
from app.configuration.settings import load_settings
from app.costs.price import RATES
from app.costs.price_table import PriceLine, price_lines
from app.costs.pricing import Pricing

COLUMNS = (
    words("model", 18),
    words("case", 7, drop=1),
    number("input", align="point"),
    number("cached", align="point", drop=2),
    number("cache write", align="point", drop=3),
    number("1 h", align="point", drop=4),
    number("output", align="point"),
    note("and", drop=5),
    words("source", 12, drop=7),
    note("set by", drop=6),
    note("instead of", drop=8),
)
# Further prices. Prices of reasoning and citations are per million tokens, the price of containers
# is per hour, and the other prices are per 1,000 uses.
OTHERS = (
    ("reasoning", "reasoning"),
    ("citation", "citations"),
    ("requests", "per 1,000 requests"),
    ("web_searches", "per 1,000 searches"),
    ("container_hours", "per container hour"),
)


def prices(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A model, or a pattern such as claude-*."),
    ] = None,
    wide: Wide = False,
    json: Annotated[bool, typer.Option("--json", help="Print the prices as JSON.")] = False,
) -> None:
    """Show the price of a million tokens for each model."""
    settings = load_settings()
    lines = price_lines(
        Pricing(settings.costs, settings.all_providers()), model, settings.provider_names
    )
    answer(
        [_as_json(line) for line in lines],
        prices_table(lines),
        json=json,
        wide=wide,
    )


def prices_table(lines: Sequence[PriceLine]) -> Table:
    """Return prices as a table."""
    return table(COLUMNS, [_row(line) for line in lines])


def _row(line: PriceLine) -> tuple[str, ...]:
    rates = (line.input, line.cached_input, line.cache_write, line.cache_write_1h, line.output)
    # The published prices that an operator's price replaces: input and output.
    published = " / ".join(map(_plain, line.published or ()))
    name = f"{line.provider}/{line.model}"
    others = ", ".join(
        f"{_plain(line.others[key])} {of}" for key, of in OTHERS if key in line.others
    )
    return (name, line.case, *map(_plain, rates), others, line.source, line.set_by or "", published)


def _as_json(line: PriceLine) -> dict[str, Any]:
    published = line.published and dict(
        zip(("input_usd", "output_usd"), map(_plain, line.published), strict=True)
    )
    return {
        "provider": line.provider,
        "model": line.model,
        "case": line.case or "usual",
        "per_million_tokens": {f"{name}_usd": _plain(getattr(line, name)) for name in RATES},
        "others": {f"{name}_usd": _plain(rate) for name, rate in line.others.items()},
        "source": line.source,
        "set_by": line.set_by,
        "published": published,
    }


def _plain(amount: Decimal) -> str:
    """Return dollars without trailing zeros and without an exponent."""
    return f"{amount.normalize():f}"

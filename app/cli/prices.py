"""`agentchord prices`: the price of each model's tokens, and the source of that price."""

from decimal import Decimal
from typing import Annotated, Any

import typer

from app.cli.output import answer, table
from app.configuration.settings import load_settings
from app.costs.price import RATES
from app.costs.price_table import PriceLine, price_lines
from app.costs.pricing import Pricing

COLUMNS = (
    *("model", "", "input>", "cached>", "cache write>", "1 h>", "output>", "and"),
    *("source", "set by", "instead of"),
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
    json: Annotated[bool, typer.Option("--json", help="Print the prices as JSON.")] = False,
) -> None:
    """Show the price of a million tokens for each model."""
    settings = load_settings()
    lines = price_lines(
        Pricing(settings.costs, settings.all_providers()), model, settings.provider_names
    )
    answer(
        [_as_json(line) for line in lines],
        table(COLUMNS, [_row(line) for line in lines]),
        json=json,
    )


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

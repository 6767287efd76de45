"""Arguments and options that several commands share, and the parsers of ages and moments."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run, or the beginning or end of its id.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Wide = Annotated[
    bool,
    typer.Option(
        "--wide", help="Show all columns and whole ids, also beyond the terminal's width."
    ),
]
Tenant = Annotated[str | None, typer.Option(help="Only runs of this tenant.")]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY[=VALUE]",
        help="Only runs with this label; without a value, with any value. Several options are "
        "all fulfilled.",
    ),
]
DAYS = {"today": timedelta(0), "yesterday": timedelta(days=1)}
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_labels(given: Iterable[str] | None) -> dict[str, str]:
    """Read the labels of a run, such as ``team=claims``.

    Raises:
        typer.BadParameter: If a text has no ``=``, or if a key is given twice.
    """
    found = read_label_filter(given)
    labels = {key: value for key, value in found.items() if value is not None}
    if missing := found.keys() - labels.keys():
        raise typer.BadParameter(f"--label {min(missing)} has no value: give KEY=VALUE")
    return labels


def read_label_filter(given: Iterable[str] | None) -> dict[str, str | None]:
    """Read labels that runs must have; the value of a key without ``=`` is None.

    Raises:
        typer.BadParameter: If a key is given twice.
    """
    found: dict[str, str | None] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if key in found:
            raise typer.BadParameter(f"--label {key} is given twice: give one value")
        found[key] = value if equals else None
    return found


def read_age(text: str) -> timedelta | None:
    """Read an age such as ``90m``, ``12h``, ``90d`` or ``26w``; return None for other texts."""
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    return timedelta(**{UNITS[match[2]]: int(match[1])}) if match else None


def read_since(text: str | None, *, now: datetime) -> datetime | None:
    """Read the start of a period.

    Args:
        text: An age, ``today``, ``yesterday``, or a date or time in ISO 8601; a day begins in UTC,
            and a time without a zone is in UTC. None means that the period has no start.
        now: The current time.

    Raises:
        typer.BadParameter: If the text is neither an age nor a date or time.
    """
    if text is None:
        return None
    if (age := read_age(text)) is not None:
        return now - age
    if text in DAYS:
        return now.replace(hour=0, minute=0, second=0, microsecond=0) - DAYS[text]
    try:
        start = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"--since {text!r} is not a time: give 90m, 12h, 7d, 4w, today, yesterday, or a date "
            "such as 2025-12-31"
        ) from error
    return start if start.tzinfo else start.replace(tzinfo=UTC)

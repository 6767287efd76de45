"""`agentchord doctor`: checks of everything that a run needs."""

from collections.abc import Iterator
from typing import Annotated

import typer

from app.cli.checks import Check, installation_checks
from app.cli.output import console, print_json
from app.cli.styles import STYLES
from app.cli.wrapping import Item, item


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Check that everything a run needs is in place.

    The checks look at versions, services, schema, keys and workers. The functions of `credentials`
    are called. If a check fails, the exit code is 1. If no URLs are given, the command starts the
    built-in services for the time of the checks.
    """
    checks = []
    printer = console()
    for check in _all_checks():
        checks.append(check)
        if not json:
            printer.print(*check_lines(check), sep="\n")
    if json:
        print_json(checks)
    return 1 if any(check.level == "fail" for check in checks) else 0


def check_lines(check: Check) -> list[Item]:
    """Return a finding as lines: its level, its name, and its words with their remedy."""
    mark = f"{check.level:<4}  {check.name:<15} "
    lines = [item(check.finding, mark, style=STYLES[check.level])]
    if check.remedy:
        lines.append(item(check.remedy, f"{'':<{len(mark)}}-> "))
    return lines


def _all_checks() -> Iterator[Check]:
    """Yield every check, in an order in which the first failure explains later failures."""
    yield from installation_checks()
    from app.cli.service_checks import service_checks  # noqa: PLC0415  a missing package is reported first

    yield from service_checks()

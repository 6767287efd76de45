"""`agentchord doctor`: checks of everything that a run needs."""

from collections.abc import Iterator
from typing import Annotated

import typer

from app.cli.checks import Check, installation_checks
from app.cli.output import STYLES, console, print_json, styled


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
            printer.print(styled(f"{check.level:<4}", STYLES[check.level]), end="", soft_wrap=True)
            printer.print(f"  {check.name:<15} {check.finding}", soft_wrap=True)
            if check.remedy:
                printer.print(f"{'':<22} -> {check.remedy}", soft_wrap=True)
    if json:
        print_json(checks)
    return 1 if any(check.level == "fail" for check in checks) else 0


def _all_checks() -> Iterator[Check]:
    """Yield every check, in an order in which the first failure explains later failures."""
    yield from installation_checks()
    from app.cli.service_checks import service_checks  # noqa: PLC0415  a missing package is reported first

    yield from service_checks()

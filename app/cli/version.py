"""`agentchord version`: the installed version."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import typer


def version() -> None:
    """Print the version."""
    try:
        typer.echo(version_of("agentchord"))
    except PackageNotFoundError:
        typer.echo("unknown (run from a source tree that is not installed)")

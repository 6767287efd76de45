"""`agentchord version`: the installed version."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from app.cli.messages import tell


def version() -> None:
    """Print the version."""
    try:
        tell(version_of("agentchord"))
    except PackageNotFoundError:
        tell("unknown (run from a source tree that is not installed)")

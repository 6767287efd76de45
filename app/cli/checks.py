"""The first checks of `agentchord doctor`: Python, the packages, and the name of this package.

A check is one line of output. A check that is not ok also has a remedy.
"""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import app as own_package

Level = Literal["ok", "warn", "fail"]
PACKAGES = ("celery", "redis", "sqlalchemy", "psycopg", "openai", "anthropic", "genai-prices")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: Name of the check.
        level: ``ok``, ``warn`` (runs work, but with a drawback) or ``fail``.
        finding: The finding, in a few words.
        remedy: A way to correct the problem; empty if no problem was found.
    """

    name: str
    level: Level
    finding: str
    remedy: str = ""


def judged(name: str, finding: str, *, wrong: bool, level: Level = "fail", remedy: str) -> Check:
    """Return a check that is ok; if ``wrong`` is true, the check has this level and remedy."""
    verdict: Level = level if wrong else "ok"
    return Check(name=name, level=verdict, finding=finding, remedy=remedy if wrong else "")


def installation_checks() -> Iterator[Check]:
    """Check the installation, which every other check needs."""
    yield _python()
    yield _packages()
    yield _package_name()


def _python() -> Check:
    found = platform.python_version()
    return Check(name="python", level="ok", finding=f"{found} on {platform.platform(terse=True)}")


def _packages() -> Check:
    missing, found = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return judged(
        "packages",
        f"not installed: {', '.join(missing)}" if missing else ", ".join(found),
        wrong=bool(missing),
        remedy="pip install agentchord (or make setup)",
    )


def _package_name() -> Check:
    """Check that no package ``app`` in the working directory hides this package from workers."""
    ours = Path(own_package.__file__ or "").parent
    for other in (Path("app"), Path("app.py")):
        if other.exists() and other.resolve() != ours:
            return Check(
                name="package name",
                level="fail",
                finding=f"{str(other.resolve())!r} hides AgentChord's own package `app` here",
                remedy="start agentchord in another folder, or rename yours here",
            )
    return Check(name="package name", level="ok", finding=f"`app` is {ours}")

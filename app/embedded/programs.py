"""Finds the programs of the servers, in the wheels or on this machine."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

VERSION = re.compile(r"(?:v=|\) )(\d+)\.?(\d+)?\.?(\d+)?")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A server's executable.

    Attributes:
        path: Absolute path of the executable.
        version: Numbers of the version; missing numbers are 0.
        name: Name that the program prints, such as ``postgres``, ``Redis`` or ``Valkey``.
    """

    path: Path
    version: tuple[int, int, int]
    name: str

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


def in_wheel(package: str, relative: str) -> Path | None:
    """Return the path of a file in an installed package, or None; do not import the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / relative
    return path if path.is_file() else None


def on_path(name: str) -> Path | None:
    """Return the real path of a command, or None.

    The folder in this path also has the other programs of the command's package.
    """
    found = shutil.which(name)
    return Path(found).resolve() if found else None


def ask(path: Path | None) -> Program | None:
    """Run the program at this path to learn the version; return None if the program fails."""
    if path is None:
        return None
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = VERSION.search(answer)
    if found is None:
        return None
    major, minor, patch = (int(part or 0) for part in found.groups())
    return Program(path=path, version=(major, minor, patch), name=answer.split()[0])

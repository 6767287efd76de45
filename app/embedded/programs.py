"""Finds the programs of the servers, in the wheels or on this machine."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from app.embedded.account import closed_part
from app.embedded.server import server_environment

#: Copies of programs, in a folder in which only root can write.
COPIES = Path("/var/cache/agentchord")
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
    """Return the absolute path of a command, or None.

    Links are not followed: some programs, such as Debian's Redis, are one file with several links,
    and behave as the link's name says.
    """
    found = shutil.which(name)
    return Path(found).absolute() if found else None


def ask(path: Path | None) -> Program | None:
    """Run the program at this path to learn the version; return None if the program fails."""
    if path is None:
        return None
    try:
        answer = subprocess.run(
            [path, "--version"],
            env=server_environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = VERSION.search(answer)
    if found is None:
        return None
    major, minor, patch = (int(part or 0) for part in found.groups())
    return Program(path=path, version=(major, minor, patch), name=answer.split()[0])


def within_reach(program: Program) -> Program | None:
    """Return a program that every user can start: the program, a copy of it, or None.

    If other users may not enter the folder of the program, such as an environment below ``/root``,
    root copies the program's folder out of the wheel once. Only a wheel is copied, because the
    folders around another program may hold everything of a user.
    """
    if closed_part(program.path) is None:
        return program
    source = program.path.parent.parent
    package = source.parent
    if not (package / "__init__.py").is_file():
        return None
    key = f"{source} {program.version} {program.path.stat().st_mtime_ns}"
    copy = COPIES / hashlib.sha256(os.fsencode(key)).hexdigest()[:12]
    near = replace(program, path=copy / package.name / source.name / "bin" / program.path.name)
    with contextlib.suppress(OSError):
        if not copy.is_dir():
            COPIES.mkdir(exist_ok=True)
            COPIES.chmod(0o755)
            with tempfile.TemporaryDirectory(dir=COPIES) as folder:
                made = Path(folder) / "copy"
                shutil.copytree(source, made / package.name / source.name, symlinks=True)
                libraries = package.with_name(f"{package.name}.libs")  # of a wheel
                if libraries.is_dir():
                    shutil.copytree(libraries, made / libraries.name, symlinks=True)
                _open_to_all(made)
                made.rename(copy)  # fails if another process has made the copy meanwhile
    return near if near.path.is_file() and closed_part(near.path) is None else None


def _open_to_all(folder: Path) -> None:
    """Let every user read all files below a folder, whatever the umask was."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & 0o100 else 0o044))

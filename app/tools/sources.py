"""The Python files that workers load: the listed modules, and what these import in their folders.

The files are found by their import statements, and no module is imported. So a file with a syntax
error is found, too.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from app.configuration.settings import Settings

#: The groups of entry points in which packages offer kinds and functions.
PLUGINS = "agentchord."
#: AgentChord's own packages do not change while a stack runs.
OWN = frozenset(("app", "workers"))
MAX_FILES = 2000


def user_modules(settings: Settings) -> list[str]:
    """Return the names of the modules that a worker loads for its users, and those of plugins."""
    paths = (settings.on_failure, *(each.credentials for each in settings.providers.values()))
    offered = entry_points()
    plugins = [
        point.module
        for group in sorted(offered.groups)
        if group.startswith(PLUGINS)
        for point in offered.select(group=group)
    ]
    return [*settings.imports, *(path.partition(":")[0] for path in paths if path), *plugins]


def own_folders() -> list[Path]:
    """Return the folders with modules of the user: the current folder, and those of PYTHONPATH."""
    installed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    found = [Path.cwd(), *(Path(each).resolve() for each in sys.path if each)]
    return [
        each
        for each in dict.fromkeys(found)
        if each.is_dir() and not any(each.is_relative_to(other) for other in installed)
    ]


def source_files(modules: Iterable[str], folders: Sequence[Path]) -> list[Path]:
    """Return the files of modules, of their packages, and of the modules that they import.

    Args:
        modules: Names of modules, such as ``my_tools`` or ``shop.tools``.
        folders: The folders in which modules are looked for. Installed packages are not found.
    """
    files: dict[Path, None] = {}
    waiting, known = list(modules), set[str]()
    while waiting and len(files) < MAX_FILES:
        name = waiting.pop()
        if name in known or name.partition(".")[0] in OWN:
            continue
        known.add(name)
        for path, module in _files_of(name, folders):
            if path not in files:
                files[path] = None
                waiting += _imported(path, module)
    return sorted(files)


def hashes_of(files: Iterable[Path]) -> dict[str, str]:
    """Return the hash of each file's content, by path; a file that cannot be read is left out."""
    found = {}
    for path in files:
        try:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            continue
    return found


def changed(hashes: Mapping[str, str]) -> list[str]:
    """Return the paths of ``hashes_of`` whose files exist and have another content now."""
    return [path for path, now in hashes_of(map(Path, hashes)).items() if now != hashes[path]]


def _files_of(name: str, folders: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the file of a module and of each package around it, with the name of the package."""
    words = name.split(".")
    for folder in folders:
        base = folder.joinpath(*words)
        if base.with_suffix(".py").is_file() or (base / "__init__.py").is_file():
            if base.with_suffix(".py").is_file():
                yield base.with_suffix(".py"), ".".join(words[:-1])
            for end in range(len(words), 0, -1):
                package = folder.joinpath(*words[:end]) / "__init__.py"
                if package.is_file():
                    yield package, ".".join(words[:end])
            return


def _imported(path: Path, package: str) -> Iterator[str]:
    """Yield the names of the modules that a file may import; none if the file cannot be read."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            words = package.split(".") if node.level and package else []
            start = words[: len(words) - node.level + 1] + ([node.module] if node.module else [])
            yield ".".join(start)
            # A name may be a module of the package.
            yield from (".".join([*start, each.name]) for each in node.names)

"""Imports an SDK without its thousands of types, which no call of AgentChord needs.

The ``__init__`` files of an SDK import every type and every resource of the provider's API: 2,900
modules, a second of CPU and 40 MB. A lazy package runs no ``__init__``. It imports the submodule of
a name when somebody asks for the name, so code of users finds everything as always.
"""

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import takewhile
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any


@contextmanager
def lazy_packages(root: str) -> Iterator[None]:
    """Make a package and all packages in ``types`` lazy, if the block imports them.

    A package that was imported before stays as it is. This is for packages that only import names
    from their submodules, as the generated SDKs do. Its weakness: ``vars()`` of a lazy package
    shows only what was asked for before.

    Args:
        root: Name of the package.

    Example:
        with lazy_packages("openai"):
            import openai

            client = openai.AsyncOpenAI(api_key=key)
    """
    if root in sys.modules:
        yield
        return
    finder = _Finder(root)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the lazy packages, and nothing else."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._below = f"{root}.types"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not f"{fullname}.".startswith(f"{self._below}.") and fullname != self._root:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.submodule_search_locations is None:
            return None
        if not isinstance(spec.loader, SourceFileLoader):  # its names cannot be read
            return None
        spec.loader = _LazyLoader(spec.loader)
        return spec


class _LazyLoader(Loader):
    """Makes a module that runs its code later, by its own loader."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._own
        module.__class__ = _LazyPackage


class _LazyPackage(ModuleType):
    """A package that has run none of its code yet."""

    def __getattr__(self, name: str) -> Any:
        assert self.__file__ is not None
        if place := _places(self.__file__).get(name):
            # Unlike import_module, this also finds a name that is itself a submodule.
            module = __import__(f"{self.__name__}.{place[0]}", fromlist=[place[1]])
            value = getattr(module, place[1])
            self.__dict__[name] = value
            return value
        submodule = f"{self.__name__}.{name}"
        if PathFinder.find_spec(submodule, self.__path__):
            return importlib.import_module(submodule)
        _run(self)
        return ModuleType.__getattribute__(self, name)  # the class is another one now

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the package's own code runs before, because it may set the same."""
        if name != "__class__" and not _is_submodule(self, name, value):
            _run(self)
        ModuleType.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        _run(self)
        return sorted(ModuleType.__dir__(self))


_LOCK = RLock()
_running: set[str] = set()


def _run(package: ModuleType) -> None:
    """Run a package's code, after which the package is like any other.

    This is no method, because another thread may have made it a package like any other meanwhile.
    """
    with _LOCK:
        if type(package) is not _LazyPackage or package.__name__ in _running:
            return
        _running.add(package.__name__)
        try:
            assert package.__spec__ is not None
            assert package.__spec__.loader is not None
            package.__spec__.loader.exec_module(package)
            package.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            _running.remove(package.__name__)


@cache
def _places(file: str) -> Mapping[str, tuple[str, str]]:
    """Return the submodule of each name that a package imports, and the name there.

    Only the imports before the package's first other statement count. Their submodules need nothing
    that the package itself defines.
    """
    places = {}
    for step in takewhile(_imports, ast.parse(Path(file).read_bytes()).body):
        if isinstance(step, ast.ImportFrom) and step.level == 1 and step.module:
            found = {each.asname or each.name: (step.module, each.name) for each in step.names}
            places.update(found)
    places.pop("*", None)
    return places


def _imports(step: ast.stmt) -> bool:
    """Return whether a statement only imports something, or is the docstring."""
    return isinstance(step, ast.Import | ast.ImportFrom | ast.Expr)


def _is_submodule(package: ModuleType, name: str, value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__ == f"{package.__name__}.{name}"

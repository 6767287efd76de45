"""Lazy packages: an SDK without its types, in which code of users finds everything as always."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from app.llm.lazy_packages import lazy_packages
from tests.support.stack import ROOT

NAME = "lazy_toy"
FILES = {
    "__init__.py": (
        '"""A toy."""\n'
        "from . import types\n"
        "from ._client import Client as Client, shared\n"
        "from .types import Message\n"
        "from ._more import *\n"
        "key = None\n"
        "runs = globals().get('runs', 0) + 1\n"
        "def made():\n    return key\n"
        "from ._late import late\n"
        "__all__ = ['Client', 'key']\n"
    ),
    "_client.py": "from . import types\nclass Client: pass\nshared = object()\n",
    "_more.py": "more = 1\n",
    "_late.py": "from . import made\nlate = made\n",
    "other.py": "value = 2\n",
    "types/__init__.py": "from .message import Message\nfrom .image import Image\n",
    "types/message.py": "class Message: pass\n",
    "types/image.py": "class Image: pass\n",
}
#: Names of modules, printed by a process that has made a client of each SDK.
CLIENTS = """
import sys
from app.domain.protocols import PROTOCOLS
from app.llm.dialect import dialect_of
for protocol in PROTOCOLS.values():
    dialect_of(protocol).client("none").preload()
print(*sys.modules)
"""
#: Names that a lazy package of the installed SDKs gives another object for than after its code ran.
DIFFERENCES = """
import importlib, pathlib, sys
from app.llm.lazy_packages import _LazyPackage, _places, lazy_packages
for root in ("anthropic", "openai"):
    with lazy_packages(root):
        folder = pathlib.Path(importlib.import_module(root).__file__).parent
        inits = [folder / "__init__.py", *sorted((folder / "types").rglob("__init__.py"))]
        names = [".".join([root, *file.parent.relative_to(folder).parts]) for file in inits]
        packages = [importlib.import_module(name) for name in names]
        assert all(isinstance(each, _LazyPackage) for each in packages)
        found = {each: {n: getattr(each, n) for n in _places(each.__file__)} for each in packages}
        assert sum(map(len, found.values())) > 1000
        for package, values in found.items():
            dir(package)
            for name, value in values.items():
                if vars(package)[name] is not value:
                    print(package.__name__, name)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for path, text in FILES.items():
        file = tmp_path / NAME / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with lazy_packages(NAME):
        yield import_module(NAME)
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def loaded() -> set[str]:
    return {name.removeprefix(NAME) for name in sys.modules if name.startswith(f"{NAME}.")}


def python(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_name_imports_only_its_own_submodule(toy: ModuleType) -> None:
    assert loaded() == set()

    assert toy.Client.__name__ == "Client"

    assert loaded() == {"._client", ".types"}
    assert toy.types.Message is toy.Message
    assert loaded() == {"._client", ".types", ".types.message"}


def test_a_submodule_is_found_that_the_package_does_not_import(toy: ModuleType) -> None:
    assert toy.other.value == 2
    assert "key" not in vars(toy)


@pytest.mark.parametrize("name", ["key", "more", "made", "late", "__all__"])
def test_what_the_package_itself_defines_is_there_after_its_code_has_run_once(
    toy: ModuleType, name: str
) -> None:
    shared = toy.shared

    getattr(toy, name)

    assert (toy.runs, toy.shared) == (1, shared)
    assert type(toy) is ModuleType


def test_a_name_that_does_not_exist_is_refused(toy: ModuleType) -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = toy.nonsense


def test_what_a_program_sets_stays(toy: ModuleType) -> None:
    setattr(toy, "key", "mine")  # noqa: B010 - the type of a module has no such attribute

    assert toy.made() == "mine"


def test_dir_and_star_show_everything(toy: ModuleType) -> None:
    assert {"Client", "Message", "key", "late", "more", "types"} <= set(dir(toy))
    names: dict[str, object] = {}
    exec(f"from {NAME} import *", names)
    assert {"Client", "key"} <= names.keys()


def test_threads_that_ask_at_once_all_get_it_and_the_code_runs_once(toy: ModuleType) -> None:
    barrier, found = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        found.append(toy.late)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (found, toy.runs) == ([toy.made] * 8, 1)


def test_a_package_that_was_imported_before_stays_as_it_is() -> None:
    with lazy_packages("json"):
        import json

    assert type(json) is ModuleType


def test_clients_import_neither_the_resources_nor_most_types_of_the_sdks() -> None:
    names = python(CLIENTS)

    assert [name for name in names if name.startswith(("anthropic.res", "openai.res"))] == []
    # The whole SDKs have over 3,400 modules.
    assert 100 < sum(name.startswith(("anthropic.", "openai.")) for name in names) < 1_400


def test_the_packages_of_the_installed_sdks_give_what_they_always_give() -> None:
    assert python(DIFFERENCES) == []

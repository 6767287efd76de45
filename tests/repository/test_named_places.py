"""Files, modules and tests that a page names exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.markdown import CODE_SPAN, ROOT, pages, without_blocks

PATH = re.compile(r"((?:app|workers|tests|migrations|docs|docker|scripts)/[\w./-]*)(?:::(\w+))?")
MODULE = re.compile(r"(?:app|workers)(?:\.\w+)+")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_module_and_test_that_a_page_names_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("it also names what is gone")

    assert missing(without_blocks(page), ROOT) == []


def test_the_guide_names_a_guard_for_every_common_change() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, changes = text.partition("## Common changes\n")
    sections = changes.partition("\n## ")[0].split("\n### ")[1:]

    unguarded = [
        section.partition("\n")[0]
        for section in sections
        if not re.search(r"^Guards: `tests/", section, re.MULTILINE)
    ]

    assert len(sections) >= 10
    assert unguarded == []


@pytest.mark.parametrize(
    "name",
    [
        "app/gone.py",
        "tests/unit/gone/",
        "app/errors.py::Gone",
        "tests/a.py::test_gone",
        "app.gone",
        "app.errors.Gone",
        "app.folder.gone",
    ],
)
def test_what_does_not_exist_is_found(name: str, tmp_path: Path) -> None:
    assert missing(f"See `{name}`.", a_project(tmp_path)) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "app/errors.py",
        "tests/",
        "app/errors.py::Here",
        "app/errors.py::LIMIT",
        "tests/a.py::test_here",
        "app.errors",
        "app.errors.Here.method",
        "app.folder",
        "app.folder.named_here",
        "no/path/of/ours.py",
        "apps.gone",
    ],
)
def test_what_exists_and_what_is_no_place_of_ours_is_not_found(name: str, tmp_path: Path) -> None:
    assert missing(f"See `{name}`.", a_project(tmp_path)) == []


def a_project(root: Path) -> Path:
    for folder in ("app/folder", "tests"):
        (root / folder).mkdir(parents=True)
    (root / "app/__init__.py").touch()
    (root / "app/errors.py").write_text("LIMIT = 1\n\n\nclass Here: ...\n")
    (root / "app/folder/__init__.py").write_text("named_here = 1\n")
    (root / "tests/a.py").write_text("async def test_here(): ...\n")
    return root


def missing(text: str, root: Path) -> list[str]:
    """The places in the code spans of a text that are not there."""
    found = []
    for span in CODE_SPAN.findall(text):
        if path := PATH.fullmatch(span):
            found += [] if path_exists(root / path[1], path[2]) else [span]
        elif MODULE.fullmatch(span):
            found += [] if module_exists(root, span.split(".")) else [span]
    return found


def path_exists(path: Path, name: str | None) -> bool:
    # The reader makes docker/.env from docker/.env.example.
    there = path.exists() or path.with_name(f"{path.name}.example").exists()
    return there and (name is None or name in names_in(path))


def module_exists(root: Path, parts: list[str]) -> bool:
    """Whether the first parts are a module and the next one, if any, is a name in it."""
    for count in range(len(parts), 0, -1):
        folder = root.joinpath(*parts[:count])
        for file in (folder / "__init__.py", folder.with_suffix(".py")):
            if file.is_file():
                return count == len(parts) or (count > 1 and parts[count] in names_in(file))
    return False


def names_in(file: Path) -> set[str]:
    """What a module defines or imports at its top level; public names that load late, too."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign() | ast.AnnAssign():
                found |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            case ast.ImportFrom():
                found |= {alias.asname or alias.name for alias in node.names}
    return found

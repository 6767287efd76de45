"""Imports among modules form no circle, wherever in a file they stand."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules() -> dict[str, Path]:
    files = [path for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


def imported(tree: ast.Module) -> Iterator[str]:
    """Every name that is imported: at the top, inside functions, and for type checkers only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "ruff bans relative imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str, known: dict[str, Path]) -> str | None:
    """The module that an imported name is, or stands in."""
    return next((each for each in (name, name.rpartition(".")[0]) if each in known), None)


def import_graph() -> dict[str, set[str]]:
    known = modules()
    return {
        module: {
            found
            for name in imported(ast.parse(path.read_text("utf-8")))
            if (found := module_of(name, known)) not in (None, module)
        }
        for module, path in known.items()
    }


def test_no_modules_import_each_other_not_even_late_or_for_type_checkers() -> None:
    graph = import_graph()

    assert len(graph) > 200
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))

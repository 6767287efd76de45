"""The layout: its page, the files at the door of ``app``, and unit tests that mirror the code."""

from pathlib import Path

import pytest

from tests.support.layout import END, MARK, PAGE, layout, summary, tiers
from tests.support.markdown import ROOT, section

# Everything else of the application stands in a folder, by subject.
AT_THE_DOOR = {
    "__init__.py",
    "bootstrap.py",
    "celery.py",
    "errors.py",
    "flower_access.py",
    "py.typed",
}


def test_the_layout_in_the_documentation_is_that_of_the_import_contract() -> None:
    _, written, _ = section(PAGE, mark=MARK, end=END)

    assert written == layout() + "\n", "run: make layout"


def test_the_layout_names_every_module_of_the_application_once() -> None:
    modules = [name for tier in tiers() for name in tier]

    there = {
        path.stem
        for path in (ROOT / "app").iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }
    assert sorted(modules) == sorted(there)


def test_rooms_to_come_are_no_part_of_the_layout(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        "[[tool.importlinter.contracts]]\n"
        'name = "Imports point one way"\n'
        'layers = ["top", "(planned) | (also)", "(later) | left | right"]\n'
    )

    assert tiers(project) == [["top"], ["left", "right"]]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Prices.", "Prices"),
        ("Tables; nothing else. More of it.", "Tables; nothing else"),
        ("Two lines\nof one sentence: app.bootstrap.\n\nA paragraph.", None),
        ("Code: ``a | b``.", "Code: `a \\| b`"),
    ],
)
def test_a_module_is_described_by_its_first_sentence(
    docstring: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "module.py").write_text(f'"""{docstring}"""\n')

    found = summary(tmp_path / "module")

    assert found == (expected or "Two lines of one sentence: app.bootstrap")


def test_a_module_without_docstring_has_no_description(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("")

    with pytest.raises(ValueError, match="says nothing about itself"):
        summary(tmp_path / "module")


def test_only_these_modules_stand_at_the_door_of_the_application() -> None:
    files = {path.name for path in (ROOT / "app").iterdir() if path.is_file()}

    assert files == AT_THE_DOOR, "a new subject is a folder"


@pytest.mark.parametrize("package", ["app", "workers"])
def test_unit_tests_stand_where_the_code_stands(package: str) -> None:
    mirrored = ROOT / "tests" / "unit" / package

    strangers = unmirrored(mirrored, ROOT / package)

    assert strangers == []


def test_a_folder_of_unit_tests_without_code_is_found(tmp_path: Path) -> None:
    for folder in ("tests/app/costs", "tests/app/gone/deep", "tests/app/errors", "app/costs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "app" / "errors.py").touch()

    assert unmirrored(tmp_path / "tests" / "app", tmp_path / "app") == ["gone", "gone/deep"]


def unmirrored(tests: Path, code: Path) -> list[str]:
    """The folders of tests that no folder or module of the code answers."""
    folders = (path.relative_to(tests) for path in sorted(tests.rglob("*")) if path.is_dir())
    return [
        folder.as_posix()
        for folder in folders
        if "__pycache__" not in folder.parts
        and not (code / folder).is_dir()
        and not (code / folder).with_suffix(".py").is_file()
    ]

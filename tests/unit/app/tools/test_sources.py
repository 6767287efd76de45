"""The files that workers load, found by their import statements."""

from pathlib import Path

from app.tools.sources import changed, hashes_of, source_files


def written(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def found(folder: Path, *modules: str) -> set[str]:
    files = source_files(modules, [folder])
    return {str(path.relative_to(folder)) for path in files}


def test_a_module_and_what_it_imports_are_found(tmp_path: Path) -> None:
    written(
        tmp_path,
        tools="import json\nimport prices\ndef f():\n    from bank import pay\n",
        prices="from tools import f\n",
        bank="",
        other="",
    )

    assert found(tmp_path, "tools", "no_such_module") == {"tools.py", "prices.py", "bank.py"}


def test_a_package_is_found_with_what_its_modules_import_from_each_other(tmp_path: Path) -> None:
    written(
        tmp_path,
        shop__tools="from . import prices\nfrom .bank.keys import KEY\nfrom ..above import x\n",
        shop__prices="",
        shop__bank__keys="KEY = 1\n",
        shop__unused="",
    )
    for package in ("shop", "shop/bank"):
        (tmp_path / package / "__init__.py").touch()

    assert found(tmp_path, "shop.tools") == {
        "shop/__init__.py",
        "shop/tools.py",
        "shop/prices.py",
        "shop/bank/__init__.py",
        "shop/bank/keys.py",
    }


def test_a_file_with_a_syntax_error_is_found_and_agentchord_itself_is_not(tmp_path: Path) -> None:
    written(tmp_path, tools="import app.tools.tool\nimport broken\n", broken="def (\n")

    assert found(tmp_path, "tools", "app.examples.tools") == {"tools.py", "broken.py"}


def test_only_another_content_is_a_change(tmp_path: Path) -> None:
    written(tmp_path, one="1", other="2", gone="3")
    hashes = hashes_of(tmp_path.glob("*.py"))

    written(tmp_path, one="1", other="4")
    (tmp_path / "gone.py").unlink()

    assert changed(hashes) == [str(tmp_path / "other.py")]

"""The tables of docs/architecture.md#layout, which ``make layout`` writes from the import contract.

The contract in pyproject.toml gives the modules and tiers, and the first sentence of each module's
docstring says what the module is.
"""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.markdown import ROOT, write_into

PAGE = ROOT / "docs" / "architecture.md"
MARK = "layout: written by `make layout`"
END = "end of the layout"
CONTRACT = "Imports point one way"


def tiers(project: Path = ROOT / "pyproject.toml") -> list[list[str]]:
    """Return the modules of ``app`` from top to bottom, without modules that do not exist yet."""
    contracts = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = [
        contract["layers"]
        for contract in contracts["contracts"]
        if contract.get("name") == CONTRACT
    ]
    found = [
        [name.strip() for name in layer.split("|") if not name.strip().startswith("(")]
        for layer in layers
    ]
    return [tier for tier in found if tier]


def layout(root: Path = ROOT) -> str:
    """Return the tables in the form in which they stand between the page's comments."""
    application = [
        (str(number), f"`app.{name}`", summary(root / "app" / name))
        for number, tier in enumerate(tiers(root / "pyproject.toml"), 1)
        for name in tier
    ]
    workers = [(f"`workers.{path.stem}`", summary(path)) for path in parts(root / "workers")]
    beside = [
        ("`celeryconfig.py`", summary(root / "celeryconfig.py")),
        ("`migrations`", summary(root / "migrations")),
    ]
    return "\n\n".join(
        [
            table(("tier", "module of `app`", "what it is"), application),
            table(("module of `workers`", "what it is"), workers),
            table(("beside them", "what it is"), beside),
        ]
    )


def parts(package: Path) -> Iterator[Path]:
    """Yield first the folders of a package and then its modules, both sorted by name."""
    inside = sorted(package.iterdir())
    yield from (path for path in inside if (path / "__init__.py").exists())
    yield from (path for path in inside if path.suffix == ".py" and path.stem != "__init__")


def summary(module: Path) -> str:
    """Return the first sentence of a module's docstring, without the full stop.

    Raises:
        ValueError: If the module has no docstring.
    """
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{str(file)!r} says nothing about itself")
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph)[0].removesuffix(".")
    return sentence.replace("``", "`").replace("|", r"\|")


def table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [headers, ("---" for _ in headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write_into(PAGE, layout(), mark=MARK, end=END)

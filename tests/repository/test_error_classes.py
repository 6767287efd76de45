"""Whatever the code can store as an ``error_class`` is the name of a class in ``app.errors``."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from app.errors import AgentError, error_named

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py")]
#: SQL quotes states in lower case, and error classes as they are called.
QUOTED_CLASS = re.compile(r"'([A-Z][A-Za-z]+)'")


def names_in_statements() -> Iterator[str]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and "error_class" in str(node.value):
                yield from QUOTED_CLASS.findall(str(node.value))


def stored_expressions() -> Iterator[ast.expr]:
    """What is given as ``error_class=...`` or under a key ``"error_class"``."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "error_class":
                yield node.value
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "error_class":
                        yield value


def names_in(expression: ast.expr) -> Iterator[str]:
    """Names of the classes that an expression names, as a text or as ``Class.__name__``."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Attribute) and node.attr == "__name__":
            yield from (each.id for each in ast.walk(node.value) if isinstance(each, ast.Name))


def test_every_error_class_in_a_statement_is_a_class() -> None:
    names = set(names_in_statements())

    assert names >= {"RunStopped", "UpstreamFailed", "ItemsFailed", "SubWorkflowPartial"}
    assert [name for name in names if error_named(name) is None] == []


def test_every_error_class_in_the_code_is_a_class() -> None:
    names = {name for expression in stored_expressions() for name in names_in(expression)}

    # ``type(error).__name__`` is the class of an error that was raised.
    unknown = {name for name in names if error_named(name) is None} - {"type", "error"}
    assert {"RunStopped", "ConditionFalse", "WorkerLost"} <= names
    assert unknown == set()


def test_a_name_of_no_class_is_not_found() -> None:
    assert error_named("Nonsense") is None
    assert error_named("AgentError") is AgentError

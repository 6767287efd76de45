"""A lazily made singleton is made once: only ``once`` makes one."""

import ast
from collections.abc import Iterator

from tests.support.stack import ROOT

#: This function only sets its global in the main thread, before the first task arrives.
SET_AT_THE_START = {"workers/lifecycle.py: global _runtime"}
CACHES = {"cache", "lru_cache"}


def test_no_cache_and_no_global_makes_an_object_lazily() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {what}"
        for package in ("app", "workers")
        for path in (ROOT / package).rglob("*.py")
        for what in singletons(path.read_text(encoding="utf-8"))
    }

    assert found == SET_AT_THE_START, "several threads would make several objects: use once"


def test_singletons_are_found() -> None:
    text = (
        "@lru_cache(maxsize=1)\ndef one(): ...\n@functools.cache\ndef two(): ...\n"
        "@cache\ndef square(x): ...\ndef three():\n    global made\n"
    )

    assert list(singletons(text)) == ["one()", "two()", "global made"]


def singletons(text: str) -> Iterator[str]:
    """Yield the cached functions without arguments, and the names that functions make global."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef(name=name, args=ast.arguments(args=[], kwonlyargs=[])):
                if any(_is_cache(decorator) for decorator in node.decorator_list):
                    yield f"{name}()"
            case ast.Global(names=names):
                yield from (f"global {name}" for name in names)


def _is_cache(decorator: ast.expr) -> bool:
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(function, "attr", getattr(function, "id", "")) in CACHES

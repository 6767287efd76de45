"""A number of things is told in one way, so that no output says ``1 calls``."""

import ast
import re
from pathlib import Path

import pytest

from app.domain.counts import counted
from tests.support.markdown import ROOT

#: Things that are counted in outputs. Characters and tokens are told only beside large limits.
THINGS = (
    *("agents", "attempts", "budgets", "calls", "elements", "events", "items", "levels", "minutes"),
    *("others", "outputs", "requests", "retries", "rows", "runs", "times", "tries", "workers"),
)
THING = re.compile(rf" (?:(?!(?:of|for|in|the|to|because)\b)[a-z-]+ )?(?:{'|'.join(THINGS)})\b")
FILES = [*(ROOT / "app").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]


def numbers_before_things(source: str) -> list[str]:
    """Return the values of f-strings that stand before a noun in the plural."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            for value, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                    text = ast.unparse(value.value)
                    decimals = value.format_spec is not None and re.search(
                        r"\.[1-9]", ast.unparse(value.format_spec)
                    )
                    told = after.value if isinstance(after.value, str) else ""
                    if THING.match(told) and not text.isupper() and not decimals:
                        found.append(f"{text}{told}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_output_writes_a_number_before_a_plural_itself(path: Path) -> None:
    if "simulator" in path.parts or "examples" in path.parts:
        pytest.skip("texts that stand for a model's, and programs of users")

    found = numbers_before_things(path.read_text(encoding="utf-8"))

    assert found == [], "write counted(number, 'thing')"


def test_the_check_sees_a_number_before_a_plural() -> None:
    assert numbers_before_things("f'{n} calls'") == ["n calls"]
    assert numbers_before_things("f'in {n:,} inner runs of it'") == ["n inner runs of it"]
    assert numbers_before_things("f'{MOST} calls, {x:.1f} times, {counted(n, \"call\")} x'") == []


@pytest.mark.parametrize(
    ("number", "noun", "plural", "expected"),
    [
        (0, "call", "", "0 calls"),
        (1, "call", "", "1 call"),
        (1200, "call", "", "1,200 calls"),
        (2, "retry", "retries", "2 retries"),
        (1, "retry", "retries", "1 retry"),
    ],
)
def test_a_number_has_a_noun_of_its_number(
    number: int, noun: str, plural: str, expected: str
) -> None:
    assert counted(number, noun, plural) == expected

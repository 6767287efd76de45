"""Habits of this code base that no linter knows: each was a remark once."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE_FOLDERS = ("app", "workers", "migrations", "tests")
MAX_LINES = 400
MAX_DEPTH = 2
REASON = re.compile(r"over 400 lines because \w+", re.IGNORECASE)
NAMES_THAT_SAY_NOTHING = {"common", "helpers", "manager", "misc", "util", "utils"}
WAIT = "wait for a condition with a deadline (tests/support/waiting.py)"
#: Modules of the command line that print; every other module calls these modules.
PRINTERS = ("messages.py", "output.py", "styles.py")
FORBIDDEN_IN_TESTS = {
    r"\btime\.sleep\(": WAIT,
    r"\bfrom time import .*\bsleep\b": WAIT,
    r"task_always_eager": "run a real worker",
    r"\b(Magic|Async)?Mock\(": "use the real thing, or a fake with the same interface",
    r"\bmock\.patch\b|\bmocker\b": "use the real thing, or a fake with the same interface",
}
# Written in two pieces, so that this file does not break its own rule.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield ROOT / "celeryconfig.py"


def place(path: Path, line: int | None = None) -> str:
    return f"{path.relative_to(ROOT)}" + (f":{line}" if line else "")


def lines_that_match(pattern: str | re.Pattern[str], files: Iterator[Path]) -> list[str]:
    return [
        place(path, number)
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize(("pattern", "remedy"), FORBIDDEN_IN_TESTS.items())
def test_tests_do_not_sleep_or_mock(pattern: str, remedy: str) -> None:
    allowed = {Path(__file__), ROOT / "tests" / "support" / "waiting.py"}

    found = lines_that_match(
        pattern, (path for path in python_files("tests") if path not in allowed)
    )

    assert found == [], remedy


#: Calls that wait, and the name of their seconds; the seconds are the last argument, too.
WAITS = {
    "wait": "timeout",
    "wait_async": "timeout",
    "wait_for": "timeout",
    "wait_until": "timeout_s",
    "wait_until_async": "timeout_s",
    "communicate": "timeout",
    "run": "timeout",
    "join": "timeout",
    "fail_after": "delay",
    "urlopen": "timeout",
}
#: Less is a bound that a test means.
LEAST_CEILING_S = 2.0


def unscaled(text: str) -> Iterator[int]:
    """Yield the lines of calls that wait for a fixed number of seconds at most."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        seconds = [word.value for word in node.keywords if word.arg == WAITS.get(name)]
        if name in WAITS and name != "run":
            seconds += node.args[-1:]
        if any(_is_ceiling(each) for each in seconds):
            yield node.lineno


def _is_ceiling(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int() | float() as seconds):
            return seconds >= LEAST_CEILING_S
    return False


def test_a_wait_lasts_longer_on_a_slower_machine() -> None:
    waits = ("wait(timeout=5)", "wait(5)", "thread.join(scaled(5))", "run.wait(timeout=0.1)")
    assert list(unscaled("\n".join(waits))) == [1, 2]

    found = [
        place(path, number)
        for path in python_files("tests")
        if not {"benchmarks", "simulation"} & set(path.parts)  # the clock of simulations is its own
        for number in unscaled(path.read_text(encoding="utf-8"))
    ]

    assert found == [], "give scaled(seconds), from tests.support.pace"


def test_nothing_is_left_unfinished() -> None:
    assert lines_that_match(UNFINISHED, python_files(*CODE_FOLDERS)) == []


def test_a_long_file_states_its_reason() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in python_files(*CODE_FOLDERS)}

    long = [
        place(path)
        for path, text in texts.items()
        if text.count("\n") > MAX_LINES and not REASON.search(text)
    ]

    assert long == [], "split the file, or say in it: over 400 lines because ..."


def test_every_module_has_a_name_that_says_something() -> None:
    files = python_files(*CODE_FOLDERS)

    found = [
        place(path) for path in files if {path.stem, path.parent.name} & NAMES_THAT_SAY_NOTHING
    ]

    assert found == []


def test_packages_are_flat() -> None:
    packages = [ROOT / name for name in ("app", "workers")]

    deep = [
        place(path)
        for package in packages
        for path in package.rglob("*.py")
        if len(path.relative_to(package).parts) - 1 > MAX_DEPTH
    ]

    assert deep == []


def test_every_package_module_says_what_it_is_for() -> None:
    files = (path for path in python_files("app", "workers") if path.stat().st_size)

    silent = [place(path) for path in files if not path.read_text("utf-8").startswith('"""')]

    assert silent == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = [re.split(r"[\[<>=;~ ]", requirement)[0] for requirement in wanted]
    reasons = (ROOT / "docs" / "decisions" / "dependencies.md").read_text(encoding="utf-8")

    missing = [name for name in names if not re.search(rf"^\| .*\b{name}\b", reasons, re.MULTILINE)]

    assert missing == []


def test_every_text_of_the_command_line_is_printed_as_plain_text() -> None:
    files = (path for path in (ROOT / "app" / "cli").glob("*.py") if path.name not in PRINTERS)

    printing = r"(?<![\w.])print\(|\bstdout\.write\(|\bConsole\(|(?<!\w)Text\(|typer\.echo\("
    found = lines_that_match(printing, files)

    assert found == [], (
        "call tell(), say(), answer(), styled() or console(), which show what cannot be seen"
    )

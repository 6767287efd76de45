"""Texts from outside are texts in every command, page and metric, with one spelling everywhere."""

import contextlib
import csv
import html
import io
import json
import logging
import re
from pathlib import Path

import pytest
from markupsafe import escape
from prometheus_client import generate_latest

from app import Agent, Run, Workflow, enqueue
from app.cli import application
from app.cli.application import COMMANDS
from app.client.process import transaction
from app.costs.dimensions import DIMENSIONS
from app.domain.plain_text import FORMULA_SIGNS, json_shown, shown
from app.monitoring.cluster import read_cluster
from app.monitoring.exporter import registry_of
from tests.support.pace import scaled
from tests.support.stack import Stack

#: Escapes of a terminal with a link, a bell, backspaces, other controls, marks of direction, tags
#: that are not seen, markup of Rich and of HTML, and a formula behind a separator.
HOSTILE = (
    "\x1b[2J\x1b]8;;http://x\x07\x08\r\x85\x9b\u202e\u200b\U000e0041"
    "[red]r[/red][link=http://x]:smile:<b>;=1+1"
)
#: Where the texts are; each text is a word for its place, the hostile part, and an end.
PLACES = ("workflow", "module", "tenant", "output", "error", "reason")
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)
#: Commands whose output has no text from outside, or that start processes with own tests.
WITHOUT_TEXTS = {
    *("demo", "up", "schema", "doctor", "migrate", "worker", "beat", "flower", "exporter", "psql"),
    *("simulator", "version", "prices", "prune", "costs reprice", "limits"),
}


def text_of(place: str) -> str:
    return f"{place}~{HOSTILE}~end"


def function(name: str, path: str, *dependencies: str, **arguments: str) -> Agent:
    return Agent(
        name=name,
        module=text_of("module"),
        kind="function",
        config={"function": f"tests.support.agent_functions:{path}", "arguments": arguments},
        dependencies=dependencies,
        max_retries=0,
    )


@pytest.fixture
def earlier_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept all names: names that are refused today may have been stored by an earlier version."""
    for module in ("registration.workflows", "domain.run_options", "domain.budgets"):
        monkeypatch.setattr(f"app.{module}.find_name_problem", lambda _: None)
    monkeypatch.setattr("app.domain.run_options.is_name", lambda _: True)


@pytest.fixture
def runs(stack: Stack, earlier_version: None) -> tuple[Run, Run]:
    """A run that has failed, and a run that was cancelled."""
    called = Agent(
        name="caller",
        module=text_of("module"),
        prompt_template="go",
        llm_config={"model": "gpt-4o-mini"},
    )
    agents = [
        called,
        function("echo", "everything", "caller"),
        function("failing", "fail_with", "echo", text=text_of("error")),
    ]
    failed = enqueue(
        Workflow(name=text_of("workflow"), agents=agents),
        input={"text": text_of("output")},
        tenant=text_of("tenant"),
    )
    failed.wait(timeout=scaled(60))
    waiting = [function("waits", "everything")]
    cancelled = enqueue(Workflow(name=text_of("workflow"), agents=waiting))
    cancelled.cancel(text_of("reason"))
    cancelled.wait(timeout=scaled(60))
    return failed, cancelled


def execute(*words: str) -> str:
    """Run a command in this process; return all that it prints."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        application.execute(words)
    root.handlers, root.level = handlers, level
    check(" ".join(words), errors.getvalue())
    return printed.getvalue() + ("" if "--json" in words else errors.getvalue())


def check(command: str, printed: str, *, is_json: bool = False) -> set[str]:
    """Assert that all texts are spelled in the one way; return the places of the texts."""
    assert CONTROL.findall(printed) == [], command
    found = {place for place in PLACES if f"{place}~" in printed}
    for place in found:
        # The output is an object, so all commands print it as JSON.
        in_json = is_json or place == "output"
        hostile = json_shown(escaped_json(HOSTILE)) if in_json else shown(HOSTILE)
        for rest in re.split(f"{place}~", printed)[1:]:
            assert rest.startswith(hostile[: len(hostile) // 2]), (command, place, rest[:200])
    return found


def escaped_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def commands(failed: str, cancelled: str, tmp_path: Path) -> list[tuple[str, ...]]:
    file = tmp_path / "hostile.yaml"
    file.write_text("name: x\n")
    return [
        ("runs",),
        ("run", str(file), "-i", f"{text_of('error')}:=x"),
        ("plan", str(file), "-i", f"{text_of('error')}:=x"),
        *((each, failed) for each in ("status", "logs", "explain", "costs", "watch", "output")),
        *((each, cancelled) for each in ("status", "logs", "explain", "cancel")),
        *((each, text_of("error")) for each in ("pause", "resume", "retry", "rerun", "report")),
        ("status", failed, "--follow"),
        ("explain", failed, "failing"),
        ("logs", failed, "--search", "error"),
        *(("costs", failed, "--by", by) for by in DIMENSIONS),
        ("budgets",),
        ("budgets", "show", "tenant", text_of("tenant")),
        ("budgets", "remove", "tenant", text_of("tenant")),
    ]


def test_every_command_shows_texts_from_outside_in_one_spelling(
    stack: Stack, runs: tuple[Run, Run], tmp_path: Path
) -> None:
    failed, cancelled = (each.id for each in runs)
    execute("budgets", "set", "tenant", text_of("tenant"), "--limit", "5")
    found: set[str] = set()
    words = commands(failed, cancelled, tmp_path)

    for command in words:
        found |= check(" ".join(command), execute(*command))

    assert found == set(PLACES)
    assert {each.name for each in COMMANDS} == {each[0] for each in words} | WITHOUT_TEXTS


def test_json_for_programs_has_the_escapes_of_json(stack: Stack, runs: tuple[Run, Run]) -> None:
    failed, cancelled = (each.id for each in runs)
    found: set[str] = set()
    for command in (
        *(("runs",), ("status", failed), ("explain", failed), ("logs", failed), ("output", failed)),
        *(("logs", cancelled), ("status", failed, "--follow"), ("costs", failed, "--by", "module")),
    ):
        found |= check(" ".join(command), execute(*command, "--json"), is_json=True)

    assert found == set(PLACES) - {"tenant"}


def test_a_report_shows_texts_as_texts(stack: Stack, runs: tuple[Run, Run], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found: set[str] = set()
    for run in runs:
        execute("report", run.id, "--outputs", "--output", str(page))
        written = page.read_text("utf-8")
        assert "<b>;" not in written
        outputs = written.index("<h2>Outputs</h2>") if "<h2>Outputs</h2>" in written else None
        found |= check("report", html.unescape(written[:outputs]))

    assert found == {"workflow", "module", "error", "reason"}
    execute("report", runs[0].id, "--outputs", "--output", str(page))
    assert str(escape(json_shown(escaped_json(HOSTILE)))) in page.read_text("utf-8")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_cell_of_the_costs_is_no_formula_in_any_country(
    stack: Stack, runs: tuple[Run, Run], separator: str
) -> None:
    for by in DIMENSIONS:
        written = execute("costs", "--by", by, "--csv")

        for row in csv.reader(io.StringIO(written), delimiter=separator):
            assert not any(cell.lstrip().startswith(tuple(FORMULA_SIGNS)) for cell in row)


def test_metrics_have_labels_that_can_be_read(stack: Stack, runs: tuple[Run, Run]) -> None:
    page = generate_latest(registry_of(transaction(read_cluster))).decode()

    assert CONTROL.findall(page) == []
    assert f"module~{shown(HOSTILE)}".replace("\\", "\\\\") in page

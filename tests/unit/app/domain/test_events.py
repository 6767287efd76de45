"""The catalogue of events: it has every event of the history, and the docs have all of them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.events import CATALOGUE, Level, level_of
from app.domain.status import AgentStatus, WorkflowStatus
from tests.support.markdown import ROOT

SOURCES = sorted(file for folder in ("app", "workers") for file in (ROOT / folder).rglob("*.py"))
STATEMENT = re.compile(r"INSERT INTO events\b")
WORDS = re.compile(r"'((?:run|agent|sub_run|tool|budget|circuit|call|limit|worker)_[a-z_]*)'")
#: Other quoted texts in the statements that write events.
NO_EVENTS = {"run_id", "agent_run_id", "budget_exceeded"}
#: Names of the parameters that take the type of an event, and functions that take it second:
#: HistoryWriter.note, and those that pass it on.
PARAMETERS, FUNCTIONS = {"event", "type"}, {"note", "_note", "_handed_back"}
ENDINGS = {"Ending", "_ending", "HistoryLine", "replace"}
STATUSES: dict[str, type[AgentStatus] | type[WorkflowStatus]] = {
    "agent_": AgentStatus,
    "run_": WorkflowStatus,
}


def in_statements(text: str) -> Iterator[str]:
    """Types in the SQL of a module, those that end in a status with every status there is."""
    for statement in re.findall(r'text\(\s*f?"""(.*?)"""', text, re.DOTALL):
        if STATEMENT.search(statement):
            for word in WORDS.findall(statement):
                if word.endswith("_"):
                    yield from (f"{word}{status}" for status in final(word))
                elif word not in NO_EVENTS:
                    yield word


def final(prefix: str) -> list[str]:
    """The final states of an agent or a run, which a statement adds to a prefix."""
    return [status for status in STATUSES[prefix] if status.is_final]


def in_calls(tree: ast.AST) -> Iterator[str]:
    """Types that a module passes to the functions that write events."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        given = [each.value for each in node.keywords if each.arg in PARAMETERS]
        if name in FUNCTIONS:
            given = node.args[1:2]
        elif name not in ENDINGS:
            continue
        for value in given:
            for part in ast.walk(value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    word = part.value
                    yield from (
                        [f"{word}{status}" for status in final(word)]
                        if word.endswith("_")
                        else [word]
                    )


def written() -> dict[str, Path]:
    """Every type that is written, and its modules."""
    found: dict[str, Path] = {}
    for file in SOURCES:
        text = file.read_text(encoding="utf-8")
        types = [*in_statements(text), *in_calls(ast.parse(text))]
        found |= dict.fromkeys(types, file.relative_to(ROOT))
    return found


def test_every_event_that_is_written_is_in_the_catalogue() -> None:
    assert {type_: file for type_, file in written().items() if type_ not in CATALOGUE} == {}


def test_every_event_of_the_catalogue_is_written_somewhere() -> None:
    assert CATALOGUE.keys() - written() == set()


@pytest.mark.parametrize(
    ("code", "types"),
    [
        ('self._history.note(job, "agent_teleported", {"agent": "a"})', ["agent_teleported"]),
        ('self._note(request, "circuit_melted")', ["circuit_melted"]),
        ('replace(ending, event="agent_teleported", error="it")', ["agent_teleported"]),
        ('settling.note(failed(call, "agent_teleported"))', []),
        ('log.info("agent_teleported", event="it")', []),
    ],
)
def test_a_type_is_found_in_the_calls_that_write_it_and_in_no_others(
    code: str, types: list[str]
) -> None:
    assert list(in_calls(ast.parse(code))) == types


def test_every_statement_that_writes_events_was_looked_at() -> None:
    count = sum(len(STATEMENT.findall(file.read_text(encoding="utf-8"))) for file in SOURCES)
    seen = sum(
        len(STATEMENT.findall(statement))
        for file in SOURCES
        for statement in re.findall(
            r'text\(\s*f?"""(.*?)"""', file.read_text(encoding="utf-8"), re.DOTALL
        )
    )

    assert count == seen > 15


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_documentation_has_the_line_of_every_event(name: str) -> None:
    event = CATALOGUE[name]
    facts = ", ".join(f"`{fact}`" for fact in event.facts)

    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")

    assert f"| `{name}` | {event.about} | {event.level} | {event.help} | {facts} |" in page


def test_an_event_of_a_newer_version_is_information() -> None:
    assert level_of("agent_teleported") is Level.INFO

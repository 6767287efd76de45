"""Text from outside is text: no output contains a character that controls a terminal."""

import csv
import io
import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from app.cli import costs
from app.cli.application import explain
from app.cli.messages import say, tell
from app.cli.output import PlainConsole, answer, console, print_json
from app.cli.styles import styled
from app.cli.tables import Column, Table, table
from app.costs.reports import CostLine
from app.domain.agent import Agent
from app.domain.plain_text import FORMULA_SIGNS, json_shown, shown
from app.domain.workflow import Workflow
from app.errors import WorkflowError
from app.registration.workflows import check_workflow
from app.telemetry.logging import configure_logging

HOSTILE = (
    *("\x1b[2J", "\x1b]0;pwned\x07", "\x9b31m", "a\rb", "\b\b"),
    *("\u202egpj.exe", "\u2066", "\x7f"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
TEXTS = st.text(max_size=20) | st.builds(
    lambda before, sign, after: before + sign + after,
    st.text(max_size=4),
    st.sampled_from(HOSTILE),
    st.text(max_size=4),
)
QUICK = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def controls(text: str) -> list[str]:
    return _CONTROL.findall(text)


def by_progress(text: str) -> None:
    screen = PlainConsole(file=sys.stdout, width=80)
    with Progress(console=screen, auto_refresh=False) as progress:
        progress.add_task(text, total=1)


def a_table(text: str) -> Table:
    return table((Column(heading=text),), [(text,)], title=text)


PRINTERS: dict[str, Callable[[str], None]] = {
    "say": say,
    "tell": tell,
    "a table": lambda text: answer(
        {}, table((Column(heading=text),), [(text,)], title=text), json=False
    ),
    "a text": lambda text: answer({}, text, json=False),
    "styled text": lambda text: console().print(styled(text), soft_wrap=True),
    "an error": lambda text: say(explain(WorkflowError(text))),
    "json": lambda text: answer({text: [text]}, "", json=True),
    "a progress bar": by_progress,
}


@QUICK
@given(TEXTS)
@example("".join(HOSTILE))
@pytest.mark.parametrize("printer", PRINTERS)
def test_no_printer_of_the_command_line_passes_on_a_control_character(
    capsys: pytest.CaptureFixture[str], printer: str, text: str
) -> None:
    capsys.readouterr()
    PRINTERS[printer](text)

    out, error = capsys.readouterr()

    assert controls(out + error) == []


@QUICK
@given(TEXTS)
@example("".join(HOSTILE))
def test_json_for_programs_keeps_every_character(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    capsys.readouterr()
    print_json({"name": text})

    assert json.loads(capsys.readouterr().out) == {"name": text}


@QUICK
@given(TEXTS)
@example("".join(HOSTILE))
def test_a_log_on_a_terminal_has_no_control_character_of_a_value(text: str) -> None:
    stream, before = io.StringIO(), sys.stderr
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    try:
        sys.stderr = stream
        configure_logging(SimpleNamespace(level="INFO", format="console"))
        logging.getLogger("test").warning("%s", text)
    finally:
        sys.stderr = before
        logging.getLogger().handlers = handlers
        logging.getLogger().setLevel(level)

    # The renderer's own colours are ESC [ digits m; what is left comes from the text.
    left = stream.getvalue()
    for code in range(110):
        left = left.replace(f"\x1b[{code}m", "")
    assert controls(left) == []


@pytest.mark.parametrize("text", [*HOSTILE, "[red]x[/red]", "[link=http://x]y[/link]", ":smile:"])
@pytest.mark.parametrize("printer", sorted(PRINTERS.keys() - {"a progress bar"}))
def test_every_printer_spells_a_text_in_the_same_way(
    capsys: pytest.CaptureFixture[str], printer: str, text: str
) -> None:
    PRINTERS[printer](f"<{text}>")

    out, error = capsys.readouterr()

    spelled = json_shown(json.dumps(text))[1:-1] if printer == "json" else shown(text)
    assert f"<{spelled}>" in out + error


@QUICK
@given(TEXTS | st.builds(str.__add__, st.sampled_from([*FORMULA_SIGNS, " ="]), st.text(max_size=5)))
@example("=HYPERLINK(1)")
@example("\t=1+1")
@example("a;=1+1")
def test_a_cell_of_csv_is_never_a_formula(capsys: pytest.CaptureFixture[str], key: str) -> None:
    capsys.readouterr()
    costs._print_csv([line(key)], "workflow")

    written = capsys.readouterr().out
    for separator in ",;\t":
        _, row = csv.reader(io.StringIO(written), delimiter=separator)
        assert controls(written) == []
        for cell in row:
            formula = cell.lstrip().startswith(tuple(FORMULA_SIGNS))
            assert not formula or cell == "-0.5"
    _, row = csv.reader(io.StringIO(written))
    assert "-0.5" in row


def line(key: str) -> CostLine:
    values: dict[str, Any] = dict.fromkeys((each.name for each in fields(CostLine)), 0)
    return CostLine(**values | {"keys": (key,), "cost_usd": Decimal("-0.5")})


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_that_controls_a_terminal_is_refused_in_one_line(text: str) -> None:
    call: dict[str, Any] = {"prompt_template": "go", "llm_config": {"model": "gpt-4o-mini"}}
    named = Workflow(name=f"a{text}", agents=[Agent(name="a", **call)])
    placed = Workflow(name="a", agents=[Agent(name="a", module=f"a{text}", **call)])

    for workflow, field in ((named, "name"), (placed, "agents[0].module")):
        with pytest.raises(WorkflowError, match="contains the character") as refused:
            check_workflow(workflow)
        assert refused.value.field == field
        assert controls(str(refused.value)) == []


@pytest.mark.parametrize("name", ["Überprüfung", "検査　一", "👩💻", "می‌خواهم"])
def test_a_name_in_any_language_is_accepted(name: str) -> None:
    agent = Agent(name="a", module=name, prompt_template="go", llm_config={"model": "gpt-4o-mini"})

    check_workflow(Workflow(name=name, agents=[agent]))

"""The command line without a cluster: its help, its errors, its input and output."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli.application import COMMANDS, execute, explain
from app.cli.output import print_json
from app.cli.parameters import read_since
from app.cli.processes import _split
from app.cli.run_input import read_input
from app.domain.money import aligned_dollars
from app.errors import AgentChordError, ConfigurationError, UnknownRun

ROOT = Path(__file__).parents[4]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AGENT = "{name: %s, dependencies: [%s], prompt_template: go, llm_config: {model: gpt-4o}}"
HEAVY = ("celery", "sqlalchemy", "openai", "anthropic", "redis", "pydantic", "rich", "asyncio")


def commands() -> dict[str, Any]:
    """Commands by name; those of a group by the group's name and their own."""
    found: dict[str, Any] = {each.name: each.load() for each in COMMANDS}
    for name, command in list(found.items()):
        for own, inner in getattr(command, "commands", {}).items():
            found[f"{name} {own}"] = inner
    return found


def run_cli(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = execute(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def imported_by(*words: str) -> tuple[str, set[str]]:
    """What a command line prints, and what it imports."""
    program = (
        f"import sys; from app.cli.application import execute; execute({words!r})\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout, set(done.stderr.split())


def test_the_help_imports_nothing_heavy() -> None:
    printed, modules = imported_by("--help")

    assert "Usage: agentchord" in printed
    assert not modules & {*HEAVY, "app.cli.demo"}


def test_a_command_imports_what_it_needs_itself() -> None:
    printed, modules = imported_by("version")

    assert printed.strip()
    assert "app.cli.version" in modules
    assert not modules & {"celery", "sqlalchemy", "redis", "rich", "app.cli.runs"}


def test_the_list_of_commands_quotes_the_first_line_of_their_help() -> None:
    for command in COMMANDS:
        assert command.load().help.partition("\n")[0] == command.summary


def test_every_command_explains_itself_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_cli(capsys, "--help")

    assert "..." not in out.replace("[ARGS]...", "")
    assert all(f"  {name} " in out for name in commands() if " " not in name)


def test_every_command_and_option_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = {part.split("\n", 1)[0]: part for part in text.split("### agentchord ")[1:]}

    assert sections.keys() == commands().keys()
    for name, command in commands().items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert f"`{option}" in sections[name], f"{name} {option}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "agentchord: No such command 'rnu'."),
        (["run"], "agentchord: Missing argument 'file'."),
        (["runs", "--limit", "0"], "agentchord: Invalid value for '--limit'"),
        (["runs", "--limit", "many"], "agentchord: Invalid value for '--limit'"),
        (["costs", "--since", "soon"], "agentchord: Invalid value: --since 'soon' is not a time"),
        (["prune", "--older-than", "old"], "agentchord: Invalid value: --older-than 'old' is not"),
        (["costs", "reprice"], "agentchord: Invalid value: give a RUN, or --since for all runs"),
        (["run", "x.yaml", "--input", "oops"], "agentchord: Invalid value: --input 'oops'"),
        (["worker", "opnai"], "agentchord: Invalid value: there is no queue 'opnai'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_cli(capsys, *words)

    assert code == 2
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_wrong_option_of_the_simulator_is_one_line_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        execute(["simulator", "--bogus"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "agentchord simulator: unrecognized arguments: --bogus (see --help)\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "name: w\nagents: [{name: a, prompt_template: go, llm_config: {model: gpt-4o}}",
            "w.yaml:2: is not valid YAML",
        ),
        ("name: w\nagents: {}\n", "agents: give a list of agents"),
        (
            f"name: w\nagents:\n- {AGENT % ('a', 'b')}\n- {AGENT % ('b', 'a')}\n",
            "the dependencies form a cycle: a -> b -> a",
        ),
    ],
)
def test_a_wrong_workflow_file_is_one_line_with_its_place(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(content)

    code, out, err = run_cli(capsys, "run", str(file))

    assert (code, out) == (1, "")
    assert err.startswith(f"agentchord: {file}")
    assert message in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    with pytest.raises(AgentChordError):
        execute(["run", "nowhere.yaml", "--debug"])
    with pytest.raises(AgentChordError):
        execute(["--debug", "run", "nowhere.yaml"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UnknownRun("no run has the id 'x'"), "no run has the id 'x'"),
        (ConfigurationError("first\n  second\n"), "first | second"),
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (KeyError("x"), "KeyError: 'x' (add --debug to see where)"),
        (RuntimeError(), "RuntimeError (add --debug to see where)"),
    ],
)
def test_every_error_becomes_one_readable_line(error: Exception, line: str) -> None:
    assert explain(error) == line


def test_inputs_come_in_many_forms_and_add_up(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("city: Bonn\nsize: 3\n")
    (tmp_path / "letter.txt").write_text("Dear Ms Ito,\n")
    words = (
        '{"name": "Ada", "city": "Rome"}',
        f"@{tmp_path}/more.yaml",
        f"letter=@{tmp_path}/letter.txt",
        "note=a = b",
        'list:=[1, "two"]',
        "empty=",
    )

    assert read_input(words) == {
        "name": "Ada",
        "city": "Bonn",
        "size": 3,
        "letter": "Dear Ms Ito,\n",
        "note": "a = b",
        "list": [1, "two"],
        "empty": "",
    }


@pytest.mark.parametrize(
    "words",
    [['{"a": 1, "b": {"c": 1, "c": 2}}'], ['a:={"c": 1, "c": 1}'], ["c=1", "c=2"], ["c=1", "c:=1"]],
)
def test_a_key_that_is_given_twice_is_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match=r"'c'.*twice"):
        read_input(words)


def test_a_later_word_replaces_a_key_of_an_earlier_object() -> None:
    assert read_input(['{"a": 1, "b": 2}', "a=x"]) == {"a": "x", "b": 2}


def test_the_text_of_a_file_has_no_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_bytes(b"\xef\xbb\xbfDear Ms Ito")

    assert read_input([f"letter=@{file}"]) == {"letter": "Dear Ms Ito"}


@pytest.mark.parametrize("word", ["oops", "=x", ":=1", "{", "x:={", "[1]"])
def test_an_input_of_no_form_is_refused(word: str) -> None:
    with pytest.raises(typer.BadParameter, match="--input"):
        read_input([word])


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("12h", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        ("4w", NOW - timedelta(weeks=4)),
        ("today", datetime(2026, 3, 1, tzinfo=UTC)),
        ("yesterday", datetime(2026, 2, 28, tzinfo=UTC)),
        ("2026-02-01", datetime(2026, 2, 1, tzinfo=UTC)),
        ("2026-02-01T10:00+02:00", datetime(2026, 2, 1, 8, tzinfo=UTC)),
    ],
)
def test_the_start_of_a_report_is_a_duration_or_a_date(text: str, start: datetime) -> None:
    assert read_since(text, now=NOW) == start


@pytest.mark.parametrize(
    ("words", "queues", "options"),
    [
        (["openai", "anthropic"], ["openai", "anthropic"], []),
        (["openai", "-l", "debug"], ["openai"], ["-l", "debug"]),
        (["--beat"], [], ["--beat"]),
        ([], [], []),
    ],
)
def test_what_follows_the_queues_goes_to_celery(
    words: list[str], queues: Sequence[str], options: Sequence[str]
) -> None:
    assert _split(words) == (queues, options)


def test_json_keeps_every_digit_of_money_and_times_in_iso(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"cost_usd": Decimal("0.0000000001"), "at": NOW})

    assert json.loads(capsys.readouterr().out) == {
        "cost_usd": "0.0000000001",
        "at": "2026-03-01T12:00:00+00:00",
    }


def test_money_has_one_form_with_as_many_places_and_signs_as_asked_for() -> None:
    assert aligned_dollars(Decimal("1234.5")) == "$1,234.500000"
    assert aligned_dollars(Decimal("-0.25"), places=2) == "-$0.25"
    signed = [aligned_dollars(Decimal(each), places=1, signed=True) for each in (1, -1)]
    assert signed == ["+$1.0", "-$1.0"]

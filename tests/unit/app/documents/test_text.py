"""Text files are UTF-8: another coding is named in one line, and never read as other characters."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.cli.run_input import read_input
from app.configuration.settings import load_settings
from app.documents.files import read_document
from app.documents.text import read_text
from app.domain.json_values import find_json_problem
from app.errors import AgentChordError, WorkflowFileError
from app.workflow_files.loader import load

TEXT = "name: Grüße\nother: [1, 2]\n"
CODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refusal(path: Path) -> WorkflowFileError:
    with pytest.raises(WorkflowFileError) as refused:
        read_text(path)
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.yaml"


@pytest.mark.parametrize("coding", CODINGS)
def test_another_coding_is_named(file: Path, coding: str) -> None:
    file.write_bytes(TEXT.encode(coding))

    name = coding.upper()[:6]
    assert str(refusal(file)) == f"{file}: is {name} text: save it as UTF-8"


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("a\ncafé".encode("latin-1"), 2, "is not UTF-8 text: save it as UTF-8"),
        ("a\r\ncafé".encode("cp1252"), 2, "is not UTF-8 text: save it as UTF-8"),
        ("a\rb\rcafé".encode("latin-1"), 3, "is not UTF-8 text: save it as UTF-8"),
        (b"a: b\nc: d\0e\n", 2, "contains a NUL character, so it is not a text file"),
        ("日本".encode("shift_jis"), 1, "is not UTF-8 text: save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(
    file: Path, content: bytes, line: int, problem: str
) -> None:
    file.write_bytes(content)

    refused = refusal(file)

    assert refused.line == line
    assert problem in str(refused)


READERS: dict[str, Callable[[Path], Any]] = {
    "a workflow file": load,
    "an input file": lambda path: read_input([f"@{path}"]),
    "the text of a key": lambda path: read_input([f"key=@{path}"]),
}


@pytest.mark.parametrize("content", [TEXT.encode("utf-16-le"), b"caf\xe9: 1", b"a: \0"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_the_same(
    tmp_path: Path, reader: str, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    expected = str(refusal(path))

    with pytest.raises(AgentChordError) as refused:
        READERS[reader](path)

    assert str(refused.value) == expected


@pytest.mark.parametrize("name", [".env", "settings.yaml"])
@pytest.mark.parametrize("content", [TEXT.encode("utf-16-le"), b"OPENAI_API_KEY=caf\xe9", b"\0"])
def test_settings_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    if name != ".env":
        monkeypatch.setenv("AGENTCHORD_CONFIG", name)

    with pytest.raises(AgentChordError) as refused:
        load_settings()

    assert str(refused.value).startswith(f"{name}:")
    assert "save it as UTF-8" in str(refused.value)
    assert "\n" not in str(refused.value)


@QUICK
@given(st.text(st.characters(exclude_characters="\0\r", codec="utf-8")))
@example("\ufeff")
def test_a_text_in_utf_8_is_read_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    assert read_text(path) == text


@QUICK
@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=2))
@pytest.mark.parametrize("coding", CODINGS[1:3] + CODINGS[4:])
def test_a_text_of_ascii_in_another_coding_is_never_read(
    tmp_path: Path, coding: str, text: str
) -> None:
    path = tmp_path / "text"
    path.write_bytes(text.encode(coding))

    assert f"is {coding.upper()[:6]} text" in str(refusal(path))


#: Line breaks of YAML 1.1 that are characters like others in YAML 1.2.
FORMER_BREAKS = ("\x85", "\u2028", "\u2029")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("inner", FORMER_BREAKS)
def test_a_former_line_break_of_yaml_changes_no_value_and_no_line(
    file: Path, inner: str, end: str
) -> None:
    lines = [
        f"# a comment{inner}key: hidden",
        f"plain: a{inner}b",
        f'quoted: "a{inner}b"',
        f"single: 'a{inner} b'",
        f"k{inner}ey: 1",
        "block: |",
        f"  a{inner}b",
        f"folded: >-{end}  a{inner}b",
        r'escaped: "a\N\L\P\U0010F000b"',
    ]
    file.write_bytes(end.join(lines).encode())

    document = read_document(file)

    joined = f"a{inner}b"
    assert document.value == {
        "plain": joined,
        "quoted": joined,
        "single": f"a{inner} b",
        f"k{inner}ey": 1,
        "block": f"{joined}\n",
        "folded": joined,
        "escaped": "a\x85\u2028\u2029\U0010f000b",
    }
    assert document.places()["folded",] == 8
    file.write_bytes(end.join([*lines, "wrong: [", ""]).encode())
    with pytest.raises(WorkflowFileError) as refused:
        read_document(file)
    assert refused.value.line == 11


@QUICK
@given(st.text(st.sampled_from(["a", ":", " ", "#", *FORMER_BREAKS, "\U0010f000"]), max_size=12))
def test_a_text_in_quotes_of_yaml_is_read_as_in_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quoted.yaml"
    path.write_text(json.dumps({"key": text}, ensure_ascii=False), "utf-8")

    assert read_document(path).value == {"key": text}


DEEP = 100_000
#: A value that is not kept: in YAML, in JSON, and the problem that is told.
REFUSED = {
    "NaN": (".nan", "NaN", r"is \.?nan, which is not JSON: write null"),
    "infinity": (".inf", "Infinity", r"is (\.inf|Infinity), which is not JSON: write null"),
    "minus infinity": (
        "-.INF",
        "-Infinity",
        r"is (-\.INF|-Infinity), which is not JSON: write null",
    ),
    "a large double": ("1e400", "1e400", r"is too large a number: give a string"),
    "a large integer": ("9" * 400, "9" * 400, r"is an integer with too many digits"),
    "a huge integer": ("9" * 9000, "9" * 9000, r"is an integer with too many digits"),
    "a deep list": ("[" * DEEP, "[" * DEEP + "]" * DEEP, r"is nested (more than|too deeply)"),
    "a deep object": ('{"a":' * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, r"is nested"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_value_that_is_not_kept_is_refused_in_one_line_with_its_place(
    tmp_path: Path, what: str, suffix: str
) -> None:
    yaml, in_json, problem = REFUSED[what]
    path = tmp_path / f"input{suffix}"
    value = in_json if suffix == ".json" else yaml
    path.write_text(f'{{"a": 1,\n"list": [0,\n{value}]}}')

    with pytest.raises(WorkflowFileError) as refused:
        read_document(path)

    message = str(refused.value)
    assert re.search(problem, message, re.IGNORECASE), message
    assert "\n" not in message
    assert len(message) < 500
    if "deep" not in what:
        assert f"{path}:3: list[1]: " in message


@pytest.mark.parametrize("what", REFUSED)
def test_a_value_that_is_not_kept_is_refused_on_the_command_line(what: str) -> None:
    _, in_json, problem = REFUSED[what]

    with pytest.raises(Exception, match=f"(?i){problem}") as refused:
        read_input([f"key:={in_json}"])

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_value_that_is_nested_too_deeply_is_told_in_a_short_line_everywhere() -> None:
    value: Any = 1
    for number in range(70):
        value = {f"a key with many words in it, number {number}": [value]}

    found = find_json_problem(value, "input")

    assert found is not None
    path, problem = found
    assert path.startswith("input.a key")
    assert len(path) < 250
    assert problem.startswith("is nested more than 64 levels deep")

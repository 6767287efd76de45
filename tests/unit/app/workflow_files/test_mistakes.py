"""All mistakes of a workflow and its input in one error, each with file, line and remedy."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.application import execute
from app.errors import SeveralMistakes, WorkflowFileError
from app.workflow_files.loader import load
from tests.support.modules import forget_modules

WRONG = """\
name: triage
agents:
  - name: classify
    for_each: input.mails
    prompt_template: "{item.subject}: {item.body}"
    llm_config:
      model: gpt-4o-mini
      max_token: 50
      temprature: 0
    output_schema:
      type: object
      properties: {category: {type: string}}
  - name: draft
    prompt_template: "Answer {classify[0].categry}"
    llm_config: {model: gpt-5-nan}
    dependencies: [classify]
    condition: classify[0].kategory == 'refund'
  - name: total
    kind: function
    config: {function: "mails:total", argument: {}}
input:
  mails:
    - {subject: Hello, body: Where is it?}
    - {subject: Refund}
"""
#: Line and a part of the message of each mistake in ``WRONG``.
MISTAKES = {
    (8, "did you mean 'max_tokens'?"),
    (9, "did you mean 'temperature'?"),
    (14, "did you mean 'category'?"),
    (15, "gpt-5-nan"),
    (17, "did you mean 'category'?"),
    (20, "did you mean 'arguments'?"),
    (24, "1 of 2 elements of input.mails lacks; input.mails[1]: 'item' has no key 'body'"),
}
PYTHON = """\
from app import Agent, Workflow

workflow = Workflow(
    name="triage",
    agents=[
        Agent(
            name="classify",
            for_each="input.mails",
            prompt_template="{item.subject}: {item.body}",
            llm_config={
                "model": "gpt-4o-mini",
                "max_token": 50,
            },
            output_schema={"type": "object", "properties": {"category": {}}},
        ),
        Agent(
            name="draft",
            prompt_template="Answer {classify[0].categry}",
            llm_config={"model": "gpt-4o-mini"},
            dependencies=["classify"],
        ),
    ],
)
INPUT = {
    "mails": [
        {"subject": "Hello", "body": "Where is it?"},
        {"subject": "Refund"},
    ]
}
"""


@pytest.fixture(autouse=True)
def import_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the modules of a test's files, and the folders in which they are found."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    forget_modules(tmp_path)


def planned(*words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines of a plan's refusal, without the beginning of each line."""
    assert execute(["plan", *words]) == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("agentchord: ")
    return [line.removeprefix("- ") for line in rest] or [first.removeprefix("agentchord: ")]


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_plan_names_all_mistakes_at_once_with_their_lines(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"flow.{form}"
    path.write_text(WRONG)
    lines = {number: number for number, _ in MISTAKES}
    if form == "json":
        path.write_text(as_json(tmp_path, WRONG))
        lines = dict.fromkeys(lines, 0)

    found = planned(str(path), capsys=capsys)

    assert len(found) == len(MISTAKES)
    for line, part in MISTAKES:
        place = f"{path}:{lines[line]}: " if lines[line] else f"{path}:"
        assert [each for each in found if each.startswith(place) and part in each], part


def as_json(folder: Path, text: str) -> str:
    from app.documents.files import read_document

    (folder / "other.yaml").write_text(text)
    return json.dumps(read_document(folder / "other.yaml").value, indent=1)


def test_plan_finds_the_lines_of_a_python_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "triage_of_mails.py"
    path.write_text(PYTHON)

    found = planned(str(path), capsys=capsys)

    assert [each.split(": ")[0] for each in found] == [f"{path}:{line}" for line in (12, 18, 27)]


def test_a_mistake_in_an_input_of_the_command_line_has_no_line_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "triage_of_other_mails.py"
    path.write_text(PYTHON.replace("max_token", "max_tokens").replace("categry", "category"))

    found = planned(
        str(path), "-i", 'mails:=[{"subject": "a", "body": "b"}, {"subject": "c"}]', capsys=capsys
    )

    (message,) = found
    assert message.startswith("agent 'classify': ")
    assert "input.mails[1]" in message


def test_lines_are_found_in_steps_and_in_sub_workflows(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(
        """\
name: outer
steps:
  - name: first
    agent_type: llm
    config:
      prompt_template: Classify.
      output_schemas: 1
      model: gpt-4o-mini
    output_schema: {type: object, properties: {category: {}}}
  - name: second
    agent_type: workflow
    depends_on: [first]
    config:
      workflow:
        name: inner
        agents:
          - name: reader
            prompt_template: "{first.categry}"
            llm_config: {model: gpt-4o-mini}
            output_schema: {type: objekt}
"""
    )
    file = load(path, checked=False)

    with pytest.raises(SeveralMistakes) as caught:
        load(path)

    assert file.workflow.name == "outer"
    lines = [each.line for each in caught.value.mistakes if isinstance(each, WorkflowFileError)]
    assert lines == [20, 18]


def test_unknown_keys_of_several_agents_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(
        "name: w\nagents:\n  - {name: a, prompt: x}\n  - {name: b, promt_template: y, modul: z}\n"
    )

    with pytest.raises(SeveralMistakes) as caught:
        load(path)

    assert [problem(each) for each in caught.value.mistakes] == [
        (3, "agents[0].prompt"),
        (4, "agents[1].promt_template"),
        (4, "agents[1].modul"),
    ]


def problem(mistake: Any) -> tuple[int, str]:
    return mistake.line, mistake.field


GROUP = """\
name: mails
agents:
  - name: handled
    for_each: input.mails
    agents:
      - name: classify
        prompt_template: "Name the topic: {item.txt}"
        llm_config: {model: gpt-4o-mini}
        output_schema: {type: object, properties: {kind: {type: string}}}
      - name: draft
        prompt_template: "Answer. Topic: {classify.kindd}"
        llm_config: {model: gpt-4o-mini, max_token: 200}
        dependencies: [classify]
  - name: both
    for_each: {mail: input.mails, done: handled}
    prompt_template: "{mail.tet} {done.drafft} {item.done.classify.kint}"
    llm_config: {model: gpt-4o-mini}
    condition: done.classify.kin == 'a'
    dependencies: [handled]
input: {mails: [{text: My lamp is broken.}]}
"""


def test_mistakes_in_groups_and_in_lists_that_are_walked_together_have_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(GROUP)

    found = sorted(planned(str(path), capsys=capsys))

    said = [each.removeprefix(f"{path}:").split(": ", 2)[:2] for each in found]
    assert said == [
        ["11", "agents[0].agents[1].prompt_template"],
        ["12", "agents[0].agents[1].llm_config.max_token"],
        *[["16", "agents[1].prompt_template"]] * 3,
        ["18", "agents[1].condition"],
        ["7", "agents[0].agents[0].prompt_template"],
    ]
    assert all("did you mean" in each for each in found)

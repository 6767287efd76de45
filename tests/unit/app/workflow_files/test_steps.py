"""Workflow files in the form of steps, and the JSON Schema of both forms."""

import json
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app.errors import WorkflowFileError
from app.workflow_files.json_schema import workflow_schema
from app.workflow_files.loader import load, load_workflow_file

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "app" / "examples"
PIPELINES = [EXAMPLES / "content_analysis.yaml", EXAMPLES / "data_processing.json"]
STEPS = """\
name: pipeline
cost_budget: 1
steps:
  - name: first
    agent_type: llm
    config: {prompt_template: "Judge {text}", model: gpt-4o-mini, max_tokens: 10}
    input_mapping: {text: input_text}
    output_mapping: {sentiment: mood}
  - name: second
    agent_type: llm
    prompt_template: Summarise {input_text}
    llm_config: {model: gpt-4o-mini}
    depends_on: [first]
    condition: mood == positive
input: {input_text: fine}
"""


def write(folder: Path, text: str, name: str = "flow.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(document: dict[str, Any]) -> list[str]:
    validator = jsonschema_rs.validator_for(workflow_schema())
    return [error.message for error in validator.iter_errors(document)]


def test_steps_are_agents_in_other_words(tmp_path: Path) -> None:
    first, second = load_workflow_file(write(tmp_path, STEPS)).workflow.agents

    assert first.prompt_template == "Judge {text}"
    assert first.llm_config == {"model": "gpt-4o-mini", "max_tokens": 10}
    assert first.input_mapping == {"text": "input_text"}
    assert first.output_mapping == {"sentiment": "mood"}
    assert second.dependencies == ["first"]
    assert second.condition == "mood == positive"


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.name)
def test_the_pipelines_are_steps_that_fit_the_schema(file: Path) -> None:
    loaded = load(file)

    assert [len(level) for level in loaded.workflow.get_levels()] == [1, 1]
    assert loaded.workflow.agents[1].input_mapping


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("depends_on: [first]", "depends_on: [frist]", "steps[1].depends_on: agent 'second'"),
        ("mood == positive", "moood == positive", ":14: steps[1].condition: agent 'second'"),
        ("mood == positive", "moood == positive", "did you mean 'mood'?"),
        ("mood == positive", "mood ==", "(character 8)"),
        ("agent_type: llm\n    prompt", "kind: llm\n    prompt", "no such key"),
        ("depends_on", "dependencies", "no such key; did you mean 'depends_on'?"),
        ("    agent_type: llm\n    config", "    config", "the key 'agent_type' is missing"),
        ("{sentiment: mood}", "{sentiment: first}", "which is the name of an agent"),
        ("{sentiment: mood}", "{'a b': mood}", "has the path 'a b'"),
        ("{text: input_text}", "{text: input.__class__()}", "give a path, such as"),
        ("{text: input_text}", "{text: second}", "does not depend on"),
        ("    depends_on: [first]\n", "", "'mood', which agent 'first' writes into the context"),
        (
            (
                'agent_type: llm\n    config: {prompt_template: "Judge {text}", model: gpt-4o-mini,'
                " max_tokens: 10}"
            ),
            "agent_type: text_procesor",
            ":5: steps[0].agent_type: agent 'first'",
        ),
        ("agent_type: llm", "agent_type: lml", ":5: steps[0].agent_type: agent 'first': there is"),
        ("agent_type: llm", "agent_type: lml", "did you mean 'llm'?"),
        ("steps:", "agents: []\nsteps:", "no such key"),
    ],
)
def test_a_refusal_names_the_place_in_the_words_of_the_file(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in STEPS
    with pytest.raises(WorkflowFileError) as caught:
        load(write(tmp_path, STEPS.replace(old, new, 1)))

    assert problem in str(caught.value)
    assert "flow.yaml:" in str(caught.value)


def test_the_published_schema_is_the_one_of_this_version() -> None:
    published = (ROOT / "docs" / "workflow.schema.json").read_text(encoding="utf-8")

    assert json.loads(published) == workflow_schema(), (
        "run: agentchord schema > docs/workflow.schema.json"
    )


def test_the_schema_accepts_what_loads_and_points_at_what_does_not() -> None:
    agent = {"name": "a", "prompt_template": "go", "llm_config": {"model": "gpt-4o"}}
    step = {"name": "a", "agent_type": "text_processor"}

    assert problems({"name": "x", "agents": [agent]}) == []
    assert problems({"name": "x", "steps": [step], "$schema": "y"}) == []
    assert problems({"name": "x"})
    assert problems({"name": "x", "agents": [agent], "steps": [step]})
    assert problems({"name": "x", "agents": [agent | {"prioriti": 3}]})
    assert problems({"name": "x", "agents": [agent | {"priority": 11}]})
    assert problems({"name": "x", "agents": [{"name": "a"}]})


def test_anchors_that_explode_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["name: bomb", "input:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"  a{level}: &a{level} [{aliases}]")
    text = "\n".join([*lines, "steps: *a11"])
    started_at_s = time.process_time()

    with pytest.raises(WorkflowFileError, match="over 1,000,000 values"):
        load(write(tmp_path, text))

    assert time.process_time() - started_at_s < 2


def test_ten_thousand_brackets_in_a_file_are_refused(tmp_path: Path) -> None:
    brackets = "(" * 10_000 + "true" + ")" * 10_000

    with pytest.raises(WorkflowFileError, match=r"steps\[1\].condition: .*limit is 4,000"):
        load(write(tmp_path, STEPS.replace("mood == positive", f"'{brackets}'")))

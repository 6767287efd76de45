"""Groups of agents in workflow files, and mistakes in them."""

from pathlib import Path

import pytest

from app.errors import WorkflowFileError
from app.workflow_files.loader import load

GROUP = """\
name: mails
agents:
  - name: handled
    for_each: {mail: input.mails, kind: input.kinds}
    condition: item.mail.usd > 0
    agents:
      - name: classify
        prompt_template: "{item.mail.text}"
        llm_config: {model: gpt-4o-mini}
      - name: draft
        prompt_template: "{classify} {item.kind}"
        llm_config: {model: gpt-4o-mini}
        dependencies: [classify]
        condition: index < 3
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mails.yaml"
    path.write_text(text)
    return path


def test_a_group_of_agents_is_a_sub_workflow_in_a_file_too(tmp_path: Path) -> None:
    workflow = load(written(tmp_path, GROUP)).workflow

    handled = workflow.agents[0]
    assert handled.for_each == {"mail": "input.mails", "kind": "input.kinds"}
    assert handled.sub_workflow_name == "mails: handled"


@pytest.mark.parametrize(
    ("wrong", "right", "line", "field", "words"),
    [
        ("- nam: draft", "- name: draft", 10, "agents[0].agents[1].nam", "did you mean 'name'"),
        ("[clasify]", "[classify]", 13, "agents[0].agents[1].dependencies", "'classify'?"),
        ("itm.mail", "item.mail.usd", 5, "agents[0].condition", "did you mean 'item'?"),
        ("indx <", "index <", 14, "agents[0].agents[1].condition", "did you mean 'index'?"),
        ("kind: 3", "kind: input.kinds", 4, "agents[0].for_each", "is 3"),
        ("    agent:\n", "    agents:\n", 6, "agents[0].agent", "did you mean 'agents'?"),
        ("condition: true\n    tools: [a]", "condition: item.mail.usd > 0", 6, "tools", "group"),
    ],
)
def test_a_mistake_in_a_group_is_told_with_its_line(
    tmp_path: Path, wrong: str, right: str, line: int, field: str, words: str
) -> None:
    text = GROUP.replace(right, wrong, 1)
    assert text != GROUP

    with pytest.raises(WorkflowFileError) as refused:
        load(written(tmp_path, text))

    assert refused.value.line == line
    assert field in str(refused.value)
    assert words in str(refused.value)

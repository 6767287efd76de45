"""Labels of runs, and the filters of the commands, which this process executes on a stack."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from app import CostTracker, Run, list_runs
from tests.support.commands import execute, printed
from tests.support.pace import scaled

WORKFLOW = """
name: letters
labels: {team: claims, tier: gold}
agents:
  - name: writer
    prompt_template: "Write to {customer}"
    llm_config: {model: gpt-4o-mini, max_tokens: 50}
  - name: checker
    prompt_template: "Check {writer}"
    llm_config: {model: claude-haiku-4-5, max_tokens: 50}
    dependencies: [writer]
input: {customer: Ada}
"""
LABELS = ("--label", "batch=2026-11", "--label", "team=sales")
FILTERS = (*LABELS, "--label", "tier", "--tenant", "filtered")


@pytest.fixture
def file(tmp_path: Path) -> str:
    file = tmp_path / "letters.yaml"
    file.write_text(WORKFLOW, encoding="utf-8")
    return str(file)


def answer(*words: str) -> Any:
    return json.loads(printed(*words, "--json"))


def finished(file: str, *words: str) -> str:
    run_id = answer("run", file, *words)["run_id"]
    assert Run(run_id).wait(timeout=scaled(60)) == "completed"
    return str(run_id)


@pytest.mark.usefixtures("stack")
def test_labels_and_filters_find_a_run_and_its_costs(file: str) -> None:
    run_id = finished(file, "--tenant", "filtered", *LABELS)

    (listed,) = answer("runs", *FILTERS, "--workflow", "letters")
    costs = answer("costs", *FILTERS, "--by", "tenant,agent", "--by", "label:team")
    table = printed("costs", *FILTERS, "--by", "tenant", "--by", "agent").splitlines()
    cells = printed("costs", *FILTERS, "--by", "tenant,agent", "--csv").splitlines()

    assert listed["run_id"] == run_id
    assert listed["labels"] == {"team": "sales", "tier": "gold", "batch": "2026-11"}
    assert answer("status", run_id)["labels"] == Run(run_id).labels == listed["labels"]
    assert "labels    batch=2026-11, team=sales, tier=gold\n" in printed("status", run_id)
    assert costs["by"] == "tenant,agent,label:team"
    assert {line["key"] for line in costs["lines"]} == {
        f"filtered, {name}, sales" for name in ("writer", "checker")
    }
    assert costs["lines"][0]["keys"]["label:team"] == "sales"
    assert costs["total"]["cost_usd"] == listed["spent_usd"]
    assert table[0].split()[:3] == ["tenant", "agent", "calls"]
    assert table[-1].split()[:2] == ["total", "2"]
    assert next(csv.reader(cells))[:3] == ["tenant", "agent", "calls"]


@pytest.mark.usefixtures("stack")
def test_a_program_lists_runs_and_costs_as_the_commands_do(file: str) -> None:
    run_id = finished(file, "--label", "batch=in-python")
    labels = {"team": "claims", "batch": "in-python", "tier": None}

    (record,) = list_runs("completed", workflow="letters", labels=labels)
    report = CostTracker().report("label:batch,agent", labels=labels, outer_workflow="letters")

    assert str(record.id) == run_id
    assert {line.keys for line in report.lines} == {
        ("in-python", "writer"),
        ("in-python", "checker"),
    }
    assert report.total.cost_usd == record.spent_usd


@pytest.mark.usefixtures("stack")
def test_a_filter_with_an_unknown_name_finds_nothing_and_says_so(file: str) -> None:
    finished(file)

    _, _, of_runs = execute("runs", "--workflow", "leters", "--tenant", "nobody-at-all")
    _, costs, of_costs = execute("costs", "--outer-workflow", "leters", "--json")
    _, runs, of_label = execute("runs", "--label", "no-such-key=1", "--json")

    assert of_runs.splitlines() == [
        "agentchord: there is no tenant 'nobody-at-all'",
        "agentchord: there is no workflow 'leters'; did you mean 'letters'?",
    ]
    assert "there is no workflow 'leters'; did you mean 'letters'?" in of_costs
    assert json.loads(costs)["lines"] == json.loads(runs) == []
    assert "there is no label 'no-such-key'" in of_label


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("runs", "--label", "Team=a"), "no label can have the key 'Team'"),
        (("runs", "--label", "a=1", "--label", "a=2"), "--label a is given twice"),
        (("costs", "--by", "modl"), "costs have no dimension 'modl'; did you mean 'model'"),
        (("costs", "--estimates", "--tenant", "a"), "give only --since, --wide and --json"),
        (("run", "FILE", "--label", "a"), "--label a has no value: give KEY=VALUE"),
        (("run", "FILE", "--label", "A=1"), "labels have the key 'A'"),
    ],
)
def test_a_wrong_filter_is_one_line(file: str, words: tuple[str, ...], message: str) -> None:
    code, out, errors = execute(*(file if word == "FILE" else word for word in words))

    assert code != 0
    assert out == ""
    assert message in errors
    assert len(errors.splitlines()) == 1

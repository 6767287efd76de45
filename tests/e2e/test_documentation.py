"""The examples of the documentation, executed: programs, queries, and the first workflow."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from app import enqueue
from app.workflow_files.loader import load
from tests.support.markdown import ROOT, Block, commands, files_of, marked
from tests.support.pace import scaled
from tests.support.stack import Stack, search_path

FIRST_WORKFLOW = ROOT / "docs" / "first-workflow.md"
PROGRAMS = {
    page: list(found) for page, found in groupby(marked("python", "run"), lambda block: block.page)
}


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_the_programs_of_a_page_run_one_after_the_other(
    stack: Stack, page: Path, tmp_path: Path
) -> None:
    program = tmp_path / "page.py"
    program.write_text("\n".join(block.text for block in PROGRAMS[page]), encoding="utf-8")

    done = stack.python(str(program), cwd=tmp_path)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", marked("sql", "run"), ids=lambda block: block.place)
def test_every_query_runs(stack: Stack, block: Block) -> None:
    rows = stack.sql(block.text.replace("%", "%%"))

    assert all(row.keys() for row in rows)


WORKFLOWS = [
    block
    for language in ("yaml", "json")
    for block in marked(language, "run")
    if "workflow" in block.words
]


@pytest.mark.parametrize("block", WORKFLOWS, ids=lambda block: block.place)
def test_every_workflow_file_that_is_said_to_run_completes(
    stack: Stack, block: Block, tmp_path: Path
) -> None:
    path = tmp_path / f"workflow.{block.language}"
    path.write_text(block.text, encoding="utf-8")
    file = load(path)

    run = enqueue(file.workflow, input=file.input)

    assert run.wait(timeout=scaled(30)) == "completed"


@dataclass(frozen=True)
class Terminal:
    """A shell in a folder, in which `agentchord` and `python` are this project's."""

    folder: Path
    programs: Path

    def __post_init__(self) -> None:
        self.programs.mkdir()
        for name, words in (("agentchord", "-m app.cli "), ("python", "")):
            script = self.programs / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n', encoding="utf-8")
            script.chmod(0o755)

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.start(command) as process:
            output, errors = process.communicate(timeout=scaled(60))
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command, which gets the signals itself."""
        return subprocess.Popen(
            ["/bin/sh", "-c", f"exec env {command}"],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "PYTHONPATH": search_path(),
                "AGENTCHORD_HOME": str(self.folder / "home"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.mark.timeout(180)
def test_the_first_workflow_goes_from_an_empty_folder_to_a_result(
    tmp_path: Path, runnable: Path
) -> None:
    for name, text in files_of(FIRST_WORKFLOW).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    terminal = Terminal(tmp_path, runnable / "bin")
    typed = [command for command in commands(FIRST_WORKFLOW) if "agentchord" in command]
    (start,) = [command for command in typed if command.endswith("up --simulator")]
    first, second = [command for command in typed if command.startswith("agentchord run ")]

    with terminal.start(f"{start} --log-files") as stack:
        assert stack.stdout is not None
        ready = stack.stdout.readline()
        runs = [terminal.type(f"{command} --json") for command in (first, second)]
        program = terminal.type("python order.py")
        costs = terminal.type("agentchord costs --by agent --json")
        stack.terminate()
        _, errors = stack.communicate(timeout=scaled(60))

    assert ready.startswith("ready: 2 workers, scheduler, "), errors
    for done in runs:
        outcome = json.loads(done.stdout)
        assert (done.returncode, outcome["status"]) == (0, "completed"), done.stderr
        assert outcome["outputs"].keys() == {"checker", "writer"}
    status, _, dollars = program.stdout.splitlines()
    assert (status, dollars.partition(" ")[2]) == ("completed", "dollars"), program.stderr
    calls = {line["key"]: line["calls"] for line in json.loads(costs.stdout)["lines"]}
    assert calls == {"checker": 6, "writer": 3}
    assert stack.returncode == 0

"""The forty mails of docs/tutorial.md: both twins on a real stack, and the page about them."""

import asyncio
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from app import AgentStatus, Run, Workflow, enqueue
from app.workflow_files.loader import load
from tests.support.markdown import ROOT, blocks, files_of
from tests.support.stack import Stack, client_of, run_stack, search_path
from tests.support.tutorial import PAGE, PROGRAMS, shown_blocks

COMPARE = ROOT / "docs" / "compare"
MAX_LINES = 70
BUDGET_USD = 0.05
PROGRAM_S = 110
# A call of triage, two of reply and none or one of refund for each mail, and one of manager.
CALLS = 40 + 2 * 40 + 9 + 1
CATEGORIES = {"refund": 14, "delivery": 12, "product": 8, "other": 6}
CONFIGURATION = """\
imports: [tools]
rate_limits: {openai: {default: {concurrent_requests: 100}}}
"""


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the tutorial's modules, which this process can import during a test."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    yield PROGRAMS
    for name in ("api", "mails", "tools"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tutorial_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that runs in a copy of the tutorial's folder."""
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(PROGRAMS, folder, dirs_exist_ok=True)
    with run_stack(folder, configuration=CONFIGURATION) as stack:
        yield stack


@pytest.fixture
def stack(tutorial_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with client_of(tutorial_stack, monkeypatch):
        tutorial_stack.simulator.reset()
        yield tutorial_stack


def written_in_python() -> Workflow:
    workflow = importlib.import_module("mails").workflow
    assert isinstance(workflow, Workflow)
    return workflow


def written_in_yaml() -> Workflow:
    return load(PROGRAMS / "mails.yaml").workflow


def inbox() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PROGRAMS / "mails.json").read_text(encoding="utf-8"))
    return found


def assert_forty_mails_are_handled(run: Run, stack: Stack) -> None:
    results: Mapping[str, Any] = run.results
    triages = run.outputs["triage"]
    assert run.status == "completed"
    assert Counter(triage["category"] for triage in triages) == CATEGORIES
    assert len([reply for reply in run.outputs["reply"] if reply]) == len(triages)
    for index, triage in enumerate(triages):
        due = triage["category"] == "refund" and triage["refund_usd"] >= 20
        status = AgentStatus.COMPLETED if due else AgentStatus.SKIPPED
        assert results[f"refund[{index}]"].status == status
        assert (run.outputs["refund"][index] is not None) == due
    assert results["manager"].status == AgentStatus.COMPLETED
    (ledger,) = stack.sql(
        "SELECT sum(cost_usd) AS cost_usd, count(*) AS calls FROM cost_entries WHERE run_id = %s",
        run.id,
    )
    assert run.cost == ledger["cost_usd"]
    assert 0 < ledger["cost_usd"] < BUDGET_USD
    assert ledger["calls"] == stack.simulator.summary()["requests"] == CALLS


@pytest.mark.timeout(240)
def test_the_program_handles_forty_mails(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "mails.py"],
        cwd=stack.folder,
        env={**os.environ, "PYTHONPATH": search_path(), **stack.environment},
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed for $0.00")
    (newest,) = stack.sql("SELECT id FROM runs ORDER BY id DESC LIMIT 1")
    assert_forty_mails_are_handled(Run(str(newest["id"])), stack)


@pytest.mark.timeout(240)
def test_the_workflow_file_handles_forty_mails(stack: Stack) -> None:
    run = enqueue(written_in_yaml(), inbox())

    run.wait(timeout=PROGRAM_S)

    assert_forty_mails_are_handled(run, stack)


@pytest.mark.timeout(240)
def test_a_repair_pays_for_one_mail_only(stack: Stack) -> None:
    fault = {"kind": "status", "status": 400, "provider": "openai", "prompt": "AC-1015", "first": 1}
    stack.simulator.configure(faults=[fault])
    run = enqueue(written_in_yaml(), inbox())
    assert run.wait(timeout=PROGRAM_S) == "partially_completed"
    paid = stack.simulator.summary()["by_status"]["200"]

    run.retry_failed()

    assert run.wait(timeout=PROGRAM_S) == "completed"
    # A call of triage, two of reply, and one of manager, which reads the changed list.
    assert stack.simulator.summary()["by_status"]["200"] - paid == 1 + 2 + 1


@pytest.mark.timeout(240)
def test_the_route_starts_one_run_for_a_day(
    stack: Stack, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", fastapi_of_routes())
    accept = importlib.import_module("api").accept
    mails = inbox()["mails"][:2]

    async def twice() -> list[dict[str, str]]:
        return [await accept(mails, "Monday"), await accept(mails, "Monday")]

    first, second = asyncio.run(twice())

    assert first == second
    assert Run(first["run"]).wait(timeout=PROGRAM_S) == "completed"


def fastapi_of_routes() -> ModuleType:
    """Return a module with FastAPI's way to declare a route; FastAPI need not be installed."""
    module = ModuleType("fastapi")

    def post(_path: str, **_facts: Any) -> Any:
        return lambda function: function

    vars(module)["FastAPI"] = lambda: SimpleNamespace(post=post)
    return module


@pytest.mark.usefixtures("programs")
def test_python_and_yaml_give_the_same_definition() -> None:
    assert written_in_yaml().definition() == written_in_python().definition()
    assert written_in_yaml().content_hash() == written_in_python().content_hash()


def test_the_page_shows_the_programs_as_they_are() -> None:
    shown = files_of(PAGE)

    assert shown.keys() == {"tools.py", "mails.py", "mails.yaml", "api.py"}
    for name, text in shown.items():
        assert text == (PROGRAMS / name).read_text(encoding="utf-8")
    lines = [line for name in ("tools.py", "mails.py") for line in shown[name].splitlines()]
    assert len(lines) <= MAX_LINES
    assert f"have {len(lines)} lines" in PAGE.read_text(encoding="utf-8")


def test_the_page_has_the_output_of_its_commands() -> None:
    texts = [block.text for block in shown_blocks()]

    outputs = [line for text in texts for line in text.splitlines() if not line.startswith("$ ")]
    assert len(outputs) > len(texts)
    assert any("31 skipped" in line for line in outputs)


@pytest.mark.parametrize("program", sorted(COMPARE.glob("with_*.py")), ids=lambda path: path.name)
def test_the_comparison_counts_the_lines_of_its_programs(program: Path) -> None:
    text = program.read_text(encoding="utf-8")

    compile(text, str(program), "exec")

    row = f"[{program.name}]({program.name}), {len(text.splitlines())} lines"
    assert row in (COMPARE / "README.md").read_text(encoding="utf-8")


def test_the_comparison_has_the_versions_that_are_installed_to_repeat_it() -> None:
    readme = (COMPARE / "README.md").read_text(encoding="utf-8")
    pinned = [
        line
        for file in sorted(COMPARE.glob("requirements-*.txt"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith(("prefect==", "langgraph==", "langchain==", "langchain-openai=="))
    ]

    assert len(pinned) == 4
    assert [line for line in pinned if line.replace("==", " ") not in readme] == []
    assert list(blocks(COMPARE / "README.md"))

"""What the documentation says exists: links, commands, targets, variables, names, settings."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import app
from app.configuration.settings import Settings, load_settings
from app.storage.tables import CostEntry
from app.workflow_files.loader import load_workflow_file
from tests.support.command_line import QUEUES, is_known
from tests.support.markdown import (
    CODE_SPAN,
    HEADING,
    ROOT,
    Block,
    anchors,
    blocks,
    commands,
    files_of,
    links,
    marked,
    pages,
    without_blocks,
)

VARIABLE = re.compile(
    r"\b(?:AGENTCHORD|OPENAI|ANTHROPIC)_[A-Z_]*[A-Z]\b|\b(?:DATABASE|REDIS)_URL\b"
)
MAKE = re.compile(r"(?:^|&& )make ((?:[a-z-]+ ?)+)")
COMMAND = re.compile(r"(?:^|[ =])agentchord ([a-z]+)\b(.*)")
CELERY = re.compile(r"celery -A (\S+) (\S+)(.*)")
# Written in two pieces, so that this file does not break its own rule.
UNFINISHED = re.compile(
    r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "T" + "BD", "lorem" + " ipsum")) + r")\b",
    re.IGNORECASE,
)
DEPLOYMENT = [
    *(ROOT / "docker").rglob("*.yaml"),
    *(ROOT / "docker").glob("Dockerfile*"),
    ROOT / "docker" / ".env.example",
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", pages(), ids=name_of)


@each_page
def test_every_internal_link_resolves(page: Path) -> None:
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)

    assert broken == []


def test_every_page_of_the_documentation_is_in_its_index() -> None:
    index = ROOT / "docs" / "README.md"
    indexed = {
        (place.parent / link.partition("#")[0]).resolve()
        for place in (index, ROOT / "docs" / "decisions" / "README.md")
        for link in links(place)
    }

    missing = [name_of(page) for page in (ROOT / "docs").rglob("*.md") if page not in indexed]

    assert missing == ["docs/README.md"]


@pytest.mark.parametrize("file", [*pages(), *DEPLOYMENT], ids=name_of)
def test_every_variable_that_is_named_is_a_setting(file: Path) -> None:
    known = {
        name.upper() if field.validation_alias else f"AGENTCHORD_{name.upper()}"
        for name, field in Settings.model_fields.items()
    }

    named = set(VARIABLE.findall(file.read_text(encoding="utf-8")))

    assert {name for name in named if name.partition("__")[0] not in known} <= {
        "AGENTCHORD_PORT"  # what Kubernetes sets, not we
    }


@each_page
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    named = {
        target
        for command in commands(page)
        if (match := MAKE.match(command))
        for target in match[1].split()
    }

    assert named <= make_targets()


@each_page
def test_every_command_that_is_named_exists_with_its_options_and_queues(page: Path) -> None:
    wrong = [
        command
        for command in commands(page)
        if (match := COMMAND.search(command)) and not is_known(match[1], match[2])
    ]

    assert wrong == []


@each_page
def test_every_celery_command_uses_the_real_application_and_queues(page: Path) -> None:
    wrong = []
    for command in commands(page):
        if match := CELERY.search(command):
            queues = re.findall(r"-Q (\S+)", match[3])
            known = all(set(names.split(",")) <= QUEUES for names in queues)
            exists = match[2] in ("worker", "beat", "flower", "inspect")
            wrong += [] if match[1] == "app" and exists and known else [command]

    assert wrong == []


@each_page
def test_nothing_in_the_documentation_is_left_unfinished(page: Path) -> None:
    assert UNFINISHED.findall(page.read_text(encoding="utf-8")) == []


@each_page
def test_every_python_block_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_api_page_has_every_public_name() -> None:
    text = without_blocks(ROOT / "docs" / "api.md")
    words = " ".join((*CODE_SPAN.findall(text), *HEADING.findall(text)))

    missing = [name for name in app.__all__ if not re.search(rf"\b{name}\b", words)]

    assert missing == []


@pytest.mark.parametrize("block", marked("yaml", "config"), ids=lambda block: block.place)
def test_every_configuration_in_the_documentation_loads(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agentchord.yaml"
    file.write_text(block.text, encoding="utf-8")
    monkeypatch.setenv("AGENTCHORD_CONFIG", str(file))

    assert load_settings().config == file


@pytest.mark.parametrize("block", marked("yaml", "workflow"), ids=lambda block: block.place)
def test_every_workflow_file_in_the_documentation_loads(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text(block.text, encoding="utf-8")

    assert load_workflow_file(file).workflow.agents


def test_the_help_of_make_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    listed = set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE))
    assert listed == make_targets()


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_every_celery_setting_has_its_reason() -> None:
    page = ROOT / "docs" / "decisions" / "0003-celery-settings.md"
    names = re.findall(
        r"^([a-z]\w+)(?::[^=]+)? = ", (ROOT / "celeryconfig.py").read_text("utf-8"), re.MULTILINE
    )

    explained = set(CODE_SPAN.findall(page.read_text(encoding="utf-8")))

    assert len(names) > 30
    assert [name for name in names if name not in explained] == []


def test_every_column_of_the_ledger_is_explained() -> None:
    explained = set(CODE_SPAN.findall((ROOT / "docs" / "costs.md").read_text(encoding="utf-8")))
    columns = {column.name for column in CostEntry.__table__.columns}

    assert columns - explained == {"id", "budget_ids"}


def test_the_first_workflow_is_as_short_as_it_says() -> None:
    written = files_of(ROOT / "docs" / "first-workflow.md")

    assert len(written["orders.py"].splitlines()) < 30

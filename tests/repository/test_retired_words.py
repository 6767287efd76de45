"""Words of this project's own that the field has words for: none of them comes back.

The word that took a retired one's place stands beside it. A word that another part may need for
what everybody calls so (candidates of a choice, families of tokens) is retired in one folder only.
"""

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.support.markdown import ROOT
from tests.support.sources import (
    QUOTED,
    Piece,
    helps,
    lua_names,
    lua_prose,
    markdown_names,
    markdown_prose,
    python_names,
    python_prose,
    words,
)

# Words of identifiers, alone or within longer ones, in any spelling: "open gate" is `_OpenGate`
# and `open_gate_s`. Most are plain English, so prose may use them.
NAMES = {
    "announcement": "flower event",
    "cached calls": "workers.calls.cache",
    "call back": "wake deferred; for a function, callback",
    "caretaker": "keeper",
    "departure": "pending send",
    "fallback calls": "workers.calls.fallback",
    "family id": "run tree id",
    "giving up": "fail early",
    "guarded call": "circuit",
    "guarded caller": "circuit",
    "held by": "blocked by",
    "lock family": "lock run tree",
    "metered record": "counted record",
    "open gate": "slow start",
    "outbox": "corrections",
    "patience s": "max wait s",
    "pump": "exchange timer",
    "reading file": "live state",
    "set out": "mark sent",
    "stray": "orphan",
    "sub run wish": "sub run request",
    "tally": "agent counts",
    "tallies": "agent counts",
    "turn s": "time slice s",
    "wish": "request, ticket",
}
# Whole identifiers, as they are spelled: parts of them are good words.
IDENTIFIERS = {
    "DEAR": "EXPENSIVE",
    "Held": "BlockedBy",
    "Meters": "WorkerMetrics",
    "Readings": "LiveState",
    "Returns": "Deferred",
    "Wakes": "BudgetWaiters",
    "dear": "expensive",
    "readings": "live_state",
    "tallies": "agent_counts",
    "wakes": "budget_waiters",
}
# By folder: (words of identifiers, what took their place).
NAMES_OF_FOLDERS = {
    "app/rate_limits": {"candidate": "limit request", "depart": "mark sent", "gate": "slow start"},
    "app/scheduler": {"give up": "fail early", "returns": "deferred"},
    "app/storage": {
        "family": "run tree",
        "families": "run tree",
        "give up": "fail early",
        "returns": "deferred",
    },
    "workers": {"meter": "metric"},
}
MODULES = {
    "app.addresses": "app.outbound.addresses",
    "app.cli.cache_forecast": "app.planning.prompt_cache",
    "app.cli.forecast": "app.planning.forecast",
    "app.cli.process_output": "app.local_stack.process_output",
    "app.cli.stack": "app.local_stack.stack",
    "app.cli.supervised": "app.local_stack.supervised",
    "app.cli.supervisor": "app.local_stack.supervisor",
    "app.cli.time_bounds": "app.planning.time_bounds",
    "app.cli.worst_case": "app.planning.worst_case",
    "app.cost_tracker": "app.client.cost_tracker",
    "app.embedded.caretaker": "app.embedded.keeper",
    "app.embedded.stray": "app.embedded.orphans",
    "app.engine": "app.client.engine",
    "app.event_bus": "app.client.event_bus",
    "app.monitor": "app.client.monitor",
    "app.preflight": "app.registration.calls",
    "app.rate_limits.candidates": "app.rate_limits.forecast",
    "app.rate_limits.departures": "app.rate_limits.pending_sends",
    "app.rate_limits.held": "app.rate_limits.blocked_by",
    "app.rate_limits.memory": "app.rate_limits.backends.memory",
    "app.rate_limits.memory_bucket": "app.rate_limits.backends.memory_bucket",
    "app.rate_limits.open_gate": "app.rate_limits.slow_start",
    "app.rate_limits.outbox": "app.rate_limits.corrections",
    "app.rate_limits.pump": "app.rate_limits.exchange_timer",
    "app.rate_limits.redis": "app.rate_limits.backends.redis",
    "app.readings": "app.client.live_state",
    "app.run": "app.client.run",
    "app.scheduler.returns": "app.scheduler.deferred",
    "app.schemas": "app.registration.output_schemas",
    "app.setting_sections": "app.configuration.sections",
    "app.setting_sources": "app.configuration.sources",
    "app.settings": "app.configuration.settings",
    "app.storage.families": "app.storage.run_tree",
    "app.storage.giving_up": "app.storage.fail_early",
    "app.storage.returns": "app.storage.deferred",
    "app.storage.tallies": "app.storage.agent_counts",
    "app.storage.wakes": "app.storage.budget_waiters",
    "app.tools.fetching": "app.outbound.fetching",
    "app.workflow_file": "app.workflow_files.loader",
    "app.workflow_schema": "app.workflow_files.json_schema",
    "app.workflow_steps": "app.workflow_files.steps",
    "app.yaml_reader": "app.documents.yaml_reader",
    "workers.announcements": "workers.flower_events",
    "workers.cached_calls": "workers.calls.cache",
    "workers.call_records": "workers.calls.records",
    "workers.fallback_calls": "workers.calls.fallback",
    "workers.guarded_calls": "workers.calls.circuit",
    "workers.meters": "workers.worker_metrics",
    "workers.money": "workers.calls.money",
}
# Modules that became folders of the same name: only the file is retired.
FILES = ("app/client.py", "app/documents.py", "app/registration.py", "workers/calls.py")
# A process is no person, and "whoever" hides which one is meant. Letters in quotes may be dear.
PROSE = re.compile(r"\b(he|his|him|himself|whoever|dear|dearest|caretakers?)\b", re.IGNORECASE)

Reader = Callable[[str], Iterator[Piece]]
NAMES_IN: Mapping[str, Reader] = {
    ".py": python_names,
    ".lua": lua_names,
    ".md": markdown_names,
}
PROSE_IN: Mapping[str, Reader] = {
    ".py": python_prose,
    ".lua": lua_prose,
    ".md": markdown_prose,
}
PAGES = ("README.md", "CONTRIBUTING.md", "docs/")


@cache
def tracked() -> list[Path]:
    """The files in git that a person writes, without the history of changes and this one."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    left_out = {Path(__file__), ROOT / "CHANGELOG.md"}
    return sorted(path for path in paths if path.is_file() and path not in left_out)


def sources(*suffixes: str) -> dict[str, str]:
    """The texts of the code and of the documentation, by place."""
    found = ((path.relative_to(ROOT).as_posix(), path) for path in tracked())
    return {
        place: path.read_text(encoding="utf-8")
        for place, path in found
        if path.suffix in suffixes and (path.suffix != ".md" or place.startswith(PAGES))
    }


def retired_names(place: str, pieces: Iterable[Piece]) -> list[str]:
    """The retired words in the identifiers of a text, with their place and what replaces them."""
    phrases = dict(NAMES)
    for folder, more in NAMES_OF_FOLDERS.items():
        phrases |= more if place.startswith(f"{folder}/") else {}
    pattern = re.compile(rf"\b({'|'.join(sorted(phrases, key=len, reverse=True))})(?:s|es)?\b")
    found = []
    for line, name in pieces:
        if name.startswith("test_"):  # a sentence, not a name
            continue
        match = pattern.search(words(name))
        instead = phrases[match[1]] if match else IDENTIFIERS.get(name.lstrip("_"))
        found += [f"{place}:{line}: {name} -> {instead}"] if instead else []
    return found


def retired_modules(place: str, text: str) -> list[str]:
    """The modules that a text names, with dots or as a file, and that have moved."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for name in MODULE.findall(line):
            dotted = name.removesuffix(".py").replace("/", ".")
            found.append(f"{place}:{number}: {name} -> {MODULES.get(dotted, 'a folder now')}")
    return found


def retired_prose(place: str, pieces: Iterable[Piece]) -> list[str]:
    return [
        f"{place}:{line}: {word}"
        for line, text in pieces
        for word in PROSE.findall(QUOTED.sub("", text))
    ]


MODULE = re.compile(
    r"(?<![\w./])("
    + "|".join(
        [
            *(rf"{re.escape(name)}\b(?!\()" for name in MODULES),
            *(re.escape(f"{name.replace('.', '/')}.py") for name in MODULES),
            *(re.escape(name) for name in FILES),
        ]
    )
    + ")"
)


@pytest.mark.parametrize("suffix", NAMES_IN)
def test_no_identifier_is_a_retired_word(suffix: str) -> None:
    found = [
        line
        for place, text in sources(suffix).items()
        for line in retired_names(place, NAMES_IN[suffix](text))
    ]

    assert found == []


def test_no_retired_module_is_named() -> None:
    texts = sources(".py", ".lua", ".md", ".toml", ".yaml", ".yml", ".css", "")

    found = [line for place, text in texts.items() for line in retired_modules(place, text)]

    assert found == []


@pytest.mark.parametrize("suffix", PROSE_IN)
def test_prose_says_which_one_is_meant(suffix: str) -> None:
    found = [
        line
        for place, text in sources(suffix).items()
        for line in retired_prose(place, PROSE_IN[suffix](text))
    ]

    assert found == []


def test_no_command_says_a_retired_word_in_its_help() -> None:
    texts = helps()

    found = [
        line
        for command, text in texts.items()
        for line in [
            *retired_names(command, markdown_names(f"```\n{text}```\n")),
            *retired_modules(command, text),
            *retired_prose(command, [(1, text)]),
        ]
    ]

    assert {"agentchord", "agentchord run", "agentchord budgets set"} <= set(texts)
    assert all("--help" in text for text in texts.values())
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "outbox = 1",
        "class _OpenGate: ...",
        "class SubRunWish: ...",
        "def lock_family(): ...",
        "def run(patience_s): ...",
        "run(STARTUP_PATIENCE_S=1)",
        "limiter.held_by",
        "limiter._outboxes[0]",
        "from app.storage import tallies",
        "import limits as pump",
        "for wish in []: ...",
        "try: ...\nexcept ValueError as stray: ...",
        "match 1:\n    case wish: ...",
        "def run():\n    global TURN_S",
        "Reason.DEAR",
        "x: Returns",
    ],
)
def test_a_retired_word_is_found_in_every_kind_of_python_name(code: str) -> None:
    assert len(retired_names("app/x.py", python_names(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        '"""Returns what the outbox holds."""',
        'print("the pump")',
        "def test_a_call_that_does_not_set_out(): ...",
        "returns = held = meter = 1  # stray",
        "candidates = family = 1",
        "callback = tallying = outboxed = 1",
    ],
)
def test_a_sentence_and_a_longer_word_are_no_retired_name(code: str) -> None:
    assert retired_names("app/x.py", python_names(code)) == []


@pytest.mark.parametrize(
    ("folder", "name"),
    [("app/rate_limits", "Candidate"), ("app/storage", "_families"), ("workers", "meters")],
)
def test_some_words_are_retired_in_one_folder_only(folder: str, name: str) -> None:
    inside = retired_names(f"{folder}/x.py", [(7, name)])

    assert inside[0].startswith(f"{folder}/x.py:7: {name} -> ")
    assert retired_names("app/gateway/x.py", [(7, name)]) == []


def test_a_retired_word_is_found_in_lua_and_in_the_code_of_pages() -> None:
    lua = "-- the outbox\nlocal pump = 'wish'\n"
    page = "An outbox.\n\nSee `held_by`.\n\n```python run\nx = 1\noutbox = 1\n```\n"

    assert retired_names("x.lua", lua_names(lua)) == ["x.lua:2: pump -> exchange timer"]
    assert retired_names("x.md", markdown_names(page)) == [
        "x.md:7: outbox -> corrections",
        "x.md:3: held_by -> blocked by",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "from app.settings import Settings",
        '"workers.money"',
        "see ``app.rate_limits.redis``",
        "[it](app/workflow_file.py)",
        "app/client.py: a file",
        "import app.run",
    ],
)
def test_a_module_that_has_moved_is_found(text: str) -> None:
    assert len(retired_modules("x", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from app.settings_of import x",
        "my.app.settings",
        "web.app.run",
        "app.run()",
        "app/client/client.py",
        "import app.documents",
    ],
)
def test_a_module_that_only_looks_alike_is_not_found(text: str) -> None:
    assert retired_modules("x", text) == []


def test_a_person_in_place_of_a_process_is_found() -> None:
    python = '"""Whoever waits.\n\nHe says "his".\n"""\nx = "him"  # his turn\n'
    lua = "local his = 1 -- as he said\n"
    page = "He said `his`.\n\n```text\nhim\n```\n\nA “dear” friend, the other one.\n"

    found = [
        *retired_prose("x.py", python_prose(python)),
        *retired_prose("x.lua", lua_prose(lua)),
        *retired_prose("x.md", markdown_prose(page)),
    ]

    assert found == ["x.py:1: Whoever", "x.py:1: He", "x.py:5: his", "x.lua:1: he", "x.md:1: He"]


def test_every_retired_module_has_moved_to_one_that_exists() -> None:
    missing = [new for new in MODULES.values() if not exists(new)]
    back = [old for old in MODULES if exists(old)] + [
        name for name in FILES if (ROOT / name).exists()
    ]

    assert (missing, back) == ([], [])


def exists(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()

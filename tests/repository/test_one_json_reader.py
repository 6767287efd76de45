"""JSON with values of users is read and written at one place, ``app.domain.json_text``."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OTHER_READERS = re.compile(r"^\s*(?:import (?:or)?json\b|from (?:or)?json import\b)", re.MULTILINE)
#: Modules that read or write JSON themselves -> the reason why no value of a user is changed there.
REASONS = {
    "app/cli/output.py": "the standard library writes every stored value exactly",
    "app/cli/up.py": "writes addresses and paths",
    "app/sandbox/program.py": "imports no module of the application, and reads exactly",
    "app/sandbox/queries.py": "imports no module of the application, and writes exactly",
    "app/documents/files.py": "reads only the keys, for the lines of a file",
    "app/domain/agent.py": "writes the text of a checked schema, which is a part of the hash",
    "app/domain/answer_text.py": "finds where a value ends",
    "app/domain/json_text.py": "the one place",
    "app/domain/workflow.py": "writes the text that is hashed",
    "app/events/texts.py": "carries texts",
    "app/llm/structured.py": "writes checked schemas exactly",
    "app/llm/tokens.py": "counts bytes",
    "workers/agents/conversation.py": "keeps a provider's message byte for byte",
}
#: Folders whose JSON carries no values of users, or that speak to providers.
FOLDERS = ("app/embedded", "app/failures", "app/rate_limits", "app/simulator", "app/llm")


def test_no_other_module_reads_or_writes_json_without_a_reason() -> None:
    files = [path for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py")]
    places = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if OTHER_READERS.search(path.read_text(encoding="utf-8"))
    }

    others = {place for place in places - REASONS.keys() if not place.startswith(FOLDERS)}

    assert others == set(), "call read_json and write_json of app.domain.json_text"
    assert REASONS.keys() <= places, "remove the modules that read no JSON any more"

"""The workflow and the input that `agentchord run` and `agentchord plan` read."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from app.documents.files import read_document
from app.documents.text import read_text
from app.domain.json_text import read_json
from app.domain.suggestions import shortened
from app.errors import InvalidJson
from app.workflow_files.loader import WorkflowFile, load

File = Annotated[str, typer.Argument(help="A .py, .yaml or .json file, or a module's name.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        help="JSON object, @file, key=text, key=@file or key:=JSON; repeatable.",
    ),
]

FORMS = (
    "give a JSON object, @file (JSON or YAML), key=text, key=@file (its text) or key:=JSON; "
    "several --input options are merged"
)


def load_workflow(file: str) -> WorkflowFile:
    """Return the workflow of a file, or of a module such as app.examples.basic.

    The command checks the workflow together with the input, so that all mistakes are in one error.
    """
    is_name = all(part.isidentifier() for part in file.split("."))
    if is_name and not Path(file).exists() and Path(file).suffix not in (".py", ".yaml", ".json"):
        with contextlib.suppress(ImportError):
            spec = find_spec(file)
            if spec is not None and spec.origin is not None:
                return load(spec.origin, checked=False)
    return load(file, checked=False)


def read_input(words: Sequence[str]) -> dict[str, Any]:
    """Return the input of a run.

    Args:
        words: Values of ``--input``, in order. A later word replaces the keys of an earlier file or
            object.

    Raises:
        typer.BadParameter: If a word has none of the allowed forms, or if a key is given twice.
        WorkflowFileError: If a file cannot be read.
    """
    merged: dict[str, Any] = {}
    named: set[str] = set()
    for word in words:
        found = _read(word)
        if not word.lstrip().startswith(("@", "{")):
            if twice := named.intersection(found):
                raise typer.BadParameter(f"--input gives the key {twice.pop()!r} twice: remove one")
            named.update(found)
        merged |= found
    return merged


def _read(word: str) -> dict[str, Any]:
    if word.startswith("@"):
        return _object(read_document(word[1:]).value, word)
    if word.lstrip().startswith("{"):
        return _object(_json(word, word), word)
    key, separator, value = word.partition("=")
    if not separator or not key.rstrip(":"):
        raise typer.BadParameter(f"--input {word!r} is not an input: {FORMS}")
    if key.endswith(":"):
        return {key[:-1]: _json(value, word)}
    return {key: read_text(value[1:]) if value.startswith("@") else value}


def _object(value: Any, word: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise typer.BadParameter(
            f"--input {word!r} holds {type(value).__name__}, not an object: {FORMS}"
        )
    return value


def _json(text: str, word: str) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = Counter(key for key, _ in pairs)
            raise typer.BadParameter(
                f"--input {shortened(word)}: the key {keys.most_common(1)[0][0]!r} occurs twice: "
                "remove one"
            )
        return found

    try:
        return read_json(text, "its value", pairs=build)
    except InvalidJson as error:
        raise typer.BadParameter(f"--input {shortened(word)}: {error}") from error

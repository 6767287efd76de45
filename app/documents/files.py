"""Reads YAML and JSON files as JSON values, with the line of every value."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.documents.text import read_text
from app.documents.yaml_reader import YamlReader, field_of
from app.domain.json_text import read_json
from app.errors import InvalidJson, WorkflowFileError

MAX_FILE_BYTES = 10_000_000

Place = tuple[str | int, ...]  # keys and indices that lead to a value

_FIELD_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++')


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file's content.

    Attributes:
        file: The path that the user gave.
        value: Content as JSON values.
        places: Function that returns a dict: path of a value -> line of the value, from 1.
    """

    file: str
    value: Any
    places: Callable[[], Mapping[Place, int]]

    def error(self, message: str, place: Place | str = ()) -> WorkflowFileError:
        """Make an error for a place, with the line of the place or of the nearest outer value.

        Args:
            message: The problem and the remedy.
            place: Path of the value: ``("agents", 2, "priority")`` or ``agents[2].priority``.
        """
        if isinstance(place, str):
            place = place_of(place)
        lines = self.places()
        known = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in lines), None)
        line = lines[known] if known else None
        return WorkflowFileError(message, file=self.file, line=line, field=field_of(place) or None)


def place_of(path: str) -> Place:
    """Parse a path such as ``agents[2].priority``."""
    return tuple(key or int(index) for index, key in _FIELD_PART.findall(path))


def read_document(path: Path | str) -> Document:
    """Read a file as JSON if its suffix is ``.json``, and otherwise as YAML.

    Args:
        path: Path of the file.

    Returns:
        The content of the file.

    Raises:
        WorkflowFileError: If the file cannot be read, is not valid YAML or JSON, or is over a
            limit.
    """
    file = str(path)
    text = read_text(path, max_bytes=MAX_FILE_BYTES)
    if Path(path).suffix == ".json":
        value, places = _read_json(text, file), lambda: dict(_json_places(text))
        return Document(file=file, value=value, places=places)
    reader = YamlReader(file=file)
    return Document(file=file, value=reader.read(text), places=lambda: reader.places)


def _read_json(text: str, file: str) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(mapping := dict(pairs)) < len(pairs):
            raise _repeated_json_key(text, file)
        return mapping

    try:
        return read_json(text, "", pairs=build)
    except InvalidJson as error:
        if error.line is not None or not error.path:
            raise WorkflowFileError(error.problem, file=file, line=error.line) from error
        document = Document(file=file, value=None, places=lambda: dict(_json_places(text)))
        raise document.error(error.problem, error.path) from error


def _repeated_json_key(text: str, file: str) -> WorkflowFileError:
    seen: set[Place] = set()
    for place, line in _json_places(text):
        if place in seen:
            message = f"the key {place[-1]!r} occurs twice: remove one"
            return WorkflowFileError(message, file=file, line=line)
        seen.add(place)
    return WorkflowFileError("a key occurs twice: remove one", file=file)


def _json_places(text: str) -> Iterator[tuple[Place, int]]:
    """Yield the path and the line of every key and element of a JSON text."""
    path: list[str | int] = []
    line, counted = 1, 0
    awaits_key = False
    for match in _JSON_TOKEN.finditer(text):
        lexeme = match.group()
        if lexeme in ("}", "]"):
            path.pop()
            awaits_key = False
        elif lexeme == ",":
            if isinstance(path[-1], int):
                path[-1] += 1
            else:
                awaits_key = True
        elif lexeme != ":":
            if awaits_key:
                path[-1] = json.loads(lexeme)
            if awaits_key or (path and isinstance(path[-1], int)):
                line += text.count("\n", counted, match.start())
                counted = match.start()
                yield tuple(path), line
            awaits_key = lexeme == "{"
            if lexeme in ("{", "["):
                path.append("" if awaits_key else 0)

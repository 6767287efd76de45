"""Paths of the data flow, which lead to the source of an input or to a part of an output.

A path is written like a placeholder without its braces, such as ``report.items[0].total``.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.domain.prompt import INDEX_STEP, Placeholder, look_up, placeholders
from app.errors import MissingInput

#: The whole output, in ``output_mapping``; ``$[0]`` and ``$.field`` are parts of the output.
WHOLE = "$"
# The name of a parameter or of a key of the context. Placeholders must be able to contain this
# name.
KEY = re.compile(r"[^\W\d][\w-]*")
MAX_PATH_CHARS = 1000


def parse_path(path: object) -> Placeholder | None:
    """Parse a path like a placeholder of a prompt; return None if the value is not a path."""
    if not isinstance(path, str) or len(path) > MAX_PATH_CHARS:
        return None
    text = f"{{{path}}}"
    found = placeholders(text)
    return replace(found[0], text=path) if len(found) == 1 and found[0].text == text else None


def parse_output_path(path: object) -> Placeholder | None:
    """Parse a path that begins at an output (root ``$``); return None for any other value."""
    if not isinstance(path, str):
        return None
    inside = path.removeprefix(WHOLE)
    below = parse_path(f"_{inside}" if path.startswith(WHOLE) else f"_.{path}")
    if below is None or below.root != "_" or INDEX_STEP in below.path:
        return None
    return Placeholder(root=WHOLE, path=below.path, text=path)


def part_of(output: Any, path: Placeholder) -> Any:
    """Return the part of an output that a path of ``parse_output_path`` leads to.

    Raises:
        MissingInput: If there is no such part.
    """
    return look_up(path, {WHOLE: output})


def written(path: Sequence[str | int]) -> str:
    """Write the keys and indices below a root as they stand in a path, such as ``.items[0]``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def reason_of(error: MissingInput) -> str:
    """Return the reason of an error, without the placeholder at the beginning of the message."""
    return str(error).partition(": ")[2] or str(error)

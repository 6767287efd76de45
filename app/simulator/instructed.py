"""Finds the JSON Schema in the text of a prompt, for requests without a response format."""

import json
import re
from collections.abc import Mapping
from typing import Any

_ASKS = re.compile(r"\bfits? this JSON Schema\b[^\n]*\n\s*(?=\{)", re.IGNORECASE)


def schema_in(prompt: str) -> tuple[Mapping[str, Any] | None, str]:
    """Return the schema in a prompt (or None), and the prompt without the schema."""
    asks = _ASKS.search(prompt)
    if asks is None:
        return None, prompt
    try:
        schema, end = json.JSONDecoder().raw_decode(prompt, asks.end())
    except (ValueError, RecursionError):
        return None, prompt
    return schema, prompt[: asks.start()] + prompt[end:]

"""The JSON Schema that a prompt asks its answer to fit, where no response format says it."""

import json
import re
from collections.abc import Mapping
from typing import Any

_ASKS = re.compile(r"\bfits? this JSON Schema\b[^\n]*\n\s*(?=\{)", re.IGNORECASE)


def schema_in(prompt: str) -> tuple[Mapping[str, Any] | None, str]:
    """The schema, and the prompt without it; None if there is no such instruction."""
    asks = _ASKS.search(prompt)
    if asks is None:
        return None, prompt
    try:
        schema, end = json.JSONDecoder().raw_decode(prompt, asks.end())
    except (ValueError, RecursionError):
        return None, prompt
    return schema, prompt[: asks.start()] + prompt[end:]

"""Makes the names of tool calls valid in requests, because a model may call any name.

A model may call a tool that does not exist, under a name that no provider takes: an empty name, or
a name such as ``functions.look_up``. The model is told that there is no such tool. The conversation
keeps the name that the model wrote. Only the requests have another name.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from app.llm.base import Message

#: The lengths that the providers take.
OPENAI_CHARS, ANTHROPIC_CHARS = 64, 128
_UNKNOWN = "unknown"
_OTHER = re.compile(r"[^a-zA-Z0-9_-]")


def with_valid_names(messages: Sequence[Message], most_chars: int) -> list[Message]:
    """Return a conversation whose tool calls have names that a provider takes.

    Args:
        messages: As in ``LLMClient.complete_with_tools``.
        most_chars: The largest number of characters that the provider takes in a name.
    """
    result: list[Message] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            named = [replace(call, name=_valid(call.name, most_chars)) for call in calls]
            result.append({**message, "tool_calls": named})
        else:
            result.append(message)
    return result


def _valid(name: str, most_chars: int) -> str:
    return _OTHER.sub("_", name.strip())[:most_chars] or _UNKNOWN

"""Makes up missing ids of tool calls, and makes all ids unique and valid for their receiver.

Servers leave out ids, give all calls of a turn the same id, or begin to count anew in each turn.
Other providers refuse such ids, and also refuse some forms of ids. The results of tools carry the
ids of the tool calls, so an id and its copies are always replaced together.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from secrets import token_hex

from app.llm.base import Message, ToolCall

_ANTHROPIC = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Half a surrogate pair cannot be sent.
_OPENAI = re.compile(r"[^\s\ud800-\udfff]{1,40}")
_MISTRAL = re.compile(r"[a-zA-Z0-9]{9}")
_OF_MISTRAL = re.compile(r"(?:mini?|code|magi|dev|pix|mi)stral|mixtral", re.IGNORECASE)


def unique(calls: Sequence[ToolCall]) -> list[ToolCall]:
    """Return the calls of one answer, with a new id in place of each missing or repeated id."""
    seen = set[str]()
    result = []
    for call in calls:
        id_ = call.id if call.id and call.id not in seen else f"call_{token_hex(12)}"
        seen.add(id_)
        result.append(call if id_ == call.id else replace(call, id=id_))
    return result


def for_anthropic(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation with ids that Anthropic's messages take."""
    return _renamed(messages, _ANTHROPIC, lambda digest: f"call_{digest[:24]}")


def for_openai(messages: Sequence[Message], model: str) -> list[Message]:
    """Return a conversation with ids that the servers of OpenAI's protocol take.

    Mistral's models take only ids of nine letters and digits.
    """
    if _OF_MISTRAL.search(model):
        return _renamed(messages, _MISTRAL, lambda digest: digest[:9])
    return _renamed(messages, _OPENAI, lambda digest: f"call_{digest[:24]}")


def _renamed(
    messages: Sequence[Message], form: re.Pattern[str], make: Callable[[str], str]
) -> list[Message]:
    """Replace each id that does not have the form, or that an earlier turn has used.

    A new id depends only on the old id and the place in the conversation, so a conversation has
    the same ids in each request.
    """
    used = set[str]()
    names: dict[str, str] = {}
    result: list[Message] = []
    for place, message in enumerate(messages):
        renamed = dict(message)
        if calls := message.get("tool_calls"):
            names = {}
            for call in calls:
                id_ = call.id
                if id_ in used or not form.fullmatch(id_):
                    old = f"{place} {id_}".encode("utf-8", "surrogatepass")
                    id_ = make(hashlib.sha256(old).hexdigest())
                used.add(id_)
                names[call.id] = id_
            renamed["tool_calls"] = [replace(call, id=names[call.id]) for call in calls]
        elif "tool_call_id" in message:
            id_ = message["tool_call_id"]
            renamed["tool_call_id"] = names.get(id_, id_)
        result.append(renamed)
    return result

"""Converts conversations to items of the Responses API, and reads the items of the API's answers.

An answer is a list of items: reasoning, messages and calls of functions. Because nothing is stored
at the provider, the items go back with the next request. The items go back unchanged, with three
exceptions. The items have no ``id``, because the provider would look for the id in its store.
Reasoning without encrypted content is left out, because the provider could not read this reasoning.
Images that programs have made are left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.llm.base import Message, ToolCall
from app.llm.openai_content import responses_content
from app.llm.sendable import sendable
from app.llm.wire import joined, list_in, write_json

# The provider fills in these keys, and knows these keys only for items in its store. Only items of
# the provider's own tools need a status.
_OF_THE_STORE = frozenset({"id", "status"})
_OF_TOOLS = frozenset({"web_search_call"})
#: The type of the items that run a program. These items go back with ids, as the API requires.
PROGRAM = "code_interpreter_call"


class UnknownRole(ValueError):
    """A message has a role that no conversation has."""


def items_of(
    messages: Sequence[Message], original_of: Callable[[Message], Any]
) -> list[dict[str, Any]]:
    """Return the items of a conversation, without its instructions.

    Args:
        messages: As in ``LLMClient.complete_with_tools``.
        original_of: Returns the unchanged items of a message, or None if the items came from
            somebody else.

    Raises:
        UnknownRole: If a message has an unknown role.
    """
    return [item for message in messages for item in _items(message, original_of)]


def instructions_of(messages: Sequence[Message]) -> list[str]:
    """Return the texts of all system messages."""
    return [plain(message["content"]) for message in messages if message.get("role") == "system"]


def plain(content: Any) -> str:
    """Return the text of a content; the content is a string or a list of text parts."""
    if isinstance(content, str):
        return content
    return "\n\n".join(str(part.get("text", "")) for part in content or ())


def items_in(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the answer's items; raise KeyError or TypeError if there is no list of items."""
    output = answer["output"]
    if not isinstance(output, list):
        raise TypeError(f"output is {type(output).__name__}, not a list")
    return [item for item in output if isinstance(item, Mapping)]


def calls_in(items: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
    """Return the calls of functions that an answer asks for."""
    return [
        ToolCall(
            id=_text(item.get("call_id")),
            name=_text(item.get("name")),
            arguments=_arguments(item.get("arguments")),
        )
        for item in items
        if item.get("type") == "function_call"
    ]


def text_in(items: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of an answer.

    Newer models comment on their work in messages of their own. If an answer has no final message,
    these messages are the text.
    """
    final = [item for item in items if item.get("phase") == "final_answer"]
    return _joined(final or items, "output_text", "text")


def refusal_in(items: Sequence[Mapping[str, Any]]) -> str:
    """Return the text with which the model refuses to answer; empty if there is no refusal."""
    return _joined(items, "refusal", "refusal")


def annotations_in(items: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the annotations of an answer's texts, such as the pages that the texts cite."""
    return [each for part in _parts_in(items) for each in list_in(part.get("annotations"))]


def to_send_back(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an item for the conversation; a program's images stay in the program's container."""
    if item.get("type") != PROGRAM or not isinstance(item.get("outputs"), list):
        return item
    logs = [each for each in item["outputs"] if isinstance(each, Mapping) and "logs" in each]
    return {**item, "outputs": logs}


def is_plain(item: Mapping[str, Any]) -> bool:
    """Return whether the text and the tool calls of a message already say all that an item says."""
    if item.get("type") == "message":
        return item.get("phase") is None
    extras = (item.get("namespace"), item.get("caller"))
    return item.get("type") == "function_call" and extras == (None, None)


def _items(message: Message, original_of: Callable[[Message], Any]) -> Iterator[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    match role:
        case "system":
            return
        case "user":
            yield {
                "role": role,
                "content": content if isinstance(content, str) else responses_content(content),
            }
        case "tool":
            output = _parts(content, "input_text")
            call_id = message["tool_call_id"]
            yield sendable({"type": "function_call_output", "call_id": call_id, "output": output})
        case "assistant":
            own = original_of(message)
            yield from map(sendable, _sent_back(own, message) if own else _said(message))
        case _:
            raise UnknownRole(
                f"a message has the role {role!r}: use system, user, assistant or tool"
            )


def _said(message: Message) -> Iterator[dict[str, Any]]:
    if content := message.get("content"):
        yield {"role": "assistant", "content": _parts(content, "output_text")}
    for call in message.get("tool_calls") or ():
        yield _called(call)


def _called(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _sent_back(items: Sequence[Mapping[str, Any]], message: Message) -> Iterator[dict[str, Any]]:
    calls = iter(message.get("tool_calls") or ())
    for item in items:
        if item.get("type") == "function_call":
            # The id may be made up, the name may be changed, and the arguments may be cut.
            item = {**item, **_called(next(calls))}  # noqa: PLW2901
        if item.get("type") == PROGRAM:
            yield {"outputs": None, **item}
            continue
        if item.get("type") == "reasoning" and not item.get("encrypted_content"):
            continue
        left_out = {"id"} if item.get("type") in _OF_TOOLS else _OF_THE_STORE
        yield {
            name: value
            for name, value in item.items()
            if name not in left_out and value is not None
        }


def _parts(content: Any, kind: str) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    return [{"type": kind, "text": part["text"]} for part in content]


def _joined(items: Sequence[Mapping[str, Any]], kind: str, name: str) -> str:
    kinds = (kind, "text") if kind == "output_text" else (kind,)
    parts = _parts_in(items)
    return joined(_text(part.get(name)) for part in parts if part.get("type") in kinds)


def _parts_in(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        part
        for item in items
        if item.get("type") == "message"
        for part in _content_of(item)
        if isinstance(part, Mapping)
    ]


def _content_of(item: Mapping[str, Any]) -> Sequence[Any]:
    """Return the parts of a message; some servers give only the message's text."""
    content = item.get("content") or ()
    return [{"type": "output_text", "text": content}] if isinstance(content, str) else content


def _arguments(value: Any) -> str:
    """Return arguments as a string of JSON; a call without arguments has an empty object."""
    if isinstance(value, str):
        return joined([value]) if value.strip() not in ("", "null") else "{}"
    return "{}" if value is None else write_json(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

"""The prompt renderer, which fills placeholders with JSON values and can do nothing else.

A placeholder is ``{name}``, ``{name.field}`` or ``{name.items[0].total}``. It contains keys of
dicts and indices of lists, but never an attribute, a call or a format. In the prompt of an agent
with a ``for_each``, ``{name[index]}`` is the part at the index of the agent's element. ``{{`` and
``}}`` are literal braces. A brace that opens no placeholder, as in JSON, stays as it is.
Placeholders in an inserted value are not filled.
"""

import contextlib
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.answer_text import bare_json
from app.domain.counts import counted
from app.domain.json_text import read_json, write_json
from app.domain.suggestions import did_you_mean, listed
from app.errors import AgentError, InvalidJson, MissingInput

MAX_PROMPT_CHARS = 20_000_000
MAX_PARSED_CHARS = 2_000_000
MAX_SHOWN_CHARS = 100
#: The name of the index of an element, and the step of a path that is written as ``[index]``.
INDEX = "index"
INDEX_STEP = -1

# Possessive quantifiers (*+) never backtrack, so matching takes linear time.
_NAME = r"[^\W\d][\w-]*+"
_PLACEHOLDER = rf"\{{({_NAME})((?:\.{_NAME}|\[(?:[0-9]{{1,9}}|index)\])*+)\}}"
_TOKEN = re.compile(rf"{_PLACEHOLDER}|[{{}}]")
_STEP = re.compile(rf"\.({_NAME})|\[([0-9]+|index)\]")
_MALFORMED = re.compile(
    rf"\{{\{{|{_PLACEHOLDER}|(?P<malformed>\{{{_NAME}[.\[!:][^\s{{}}\"',]*+\}})"
)


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """A place in a prompt where a value is inserted.

    Attributes:
        root: Key of the run's input, or name of an agent.
        path: Keys and indices that lead from the root to the value. INDEX_STEP stands for the
            value of ``index``.
        text: The placeholder as it is written, including its braces.
    """

    root: str
    path: tuple[str | int, ...]
    text: str


def placeholders(template: str) -> list[Placeholder]:
    """Return the placeholders of a template, in order, including repeated placeholders."""
    return [token for token in _tokens(template) if isinstance(token, Placeholder)]


def malformed_placeholders(template: str) -> list[str]:
    """Return the strings that begin like a placeholder but stay literal, such as ``{a.}``."""
    return [text for match in _MALFORMED.finditer(template) if (text := match["malformed"])]


def render(template: str, values: Mapping[str, Any], *, absent: Container[str] = ()) -> str:
    """Fill a template.

    Args:
        template: String with placeholders.
        values: JSON values by root: the run's input and the outputs of agents. Strings are inserted
            as they are. Other values are inserted as compact JSON, in which an integer keeps all
            its digits. A path may lead into a string that contains JSON, because models return JSON
            in this form.
        absent: Roots whose agent ended without an output; every path from such a root leads to
            null.

    Returns:
        The prompt.

    Raises:
        MissingInput: If a placeholder has no value; the message has the missing part and the parts
            that exist.
        AgentError: If the prompt would be over 20 million characters.
    """
    filled: dict[str, str] = {}
    parsed: dict[int, Any] = {}
    parts: list[str] = []
    size = 0
    for token in _tokens(template):
        if isinstance(token, str):
            part = token
        elif token.text in filled:
            part = filled[token.text]
        else:
            value = None if token.root in absent else look_up(token, values, parsed)
            part = filled[token.text] = value if isinstance(value, str) else _as_json(token, value)
        size += len(part)
        if size > MAX_PROMPT_CHARS:
            raise AgentError(
                f"the prompt is over {MAX_PROMPT_CHARS:,} characters with its placeholders filled: "
                "insert less, such as {agent.field} in place of {agent}"
            )
        parts.append(part)
    return "".join(parts)


def look_up(
    placeholder: Placeholder, values: Mapping[str, Any], parsed: dict[int, Any] | None = None
) -> Any:
    """Look up the value of a placeholder.

    Args:
        placeholder: The placeholder.
        values: JSON values by root.
        parsed: ``id()`` of a string that contains JSON -> the parsed value. Look-ups in the same
            values share this dict, so that each string is parsed once.

    Returns:
        The JSON value.

    Raises:
        MissingInput: If the placeholder has no value.
    """
    parsed = {} if parsed is None else parsed
    value: Any = values
    seen = ""
    for step in (placeholder.root, *placeholder.path):
        if step == INDEX_STEP:
            step = _index(placeholder, values)  # noqa: PLW2901
        if isinstance(value, str):
            value = _parse(value, parsed)
        if isinstance(step, str):
            if not isinstance(value, Mapping):
                raise _missing(placeholder, f"{seen!r} is {_kind(value)}, so it has no {step!r}")
            if step not in value:
                raise _missing_key(placeholder, seen, step, value)
            seen += f".{step}" if seen else step
        else:
            if not isinstance(value, list | tuple):
                raise _missing(placeholder, f"{seen!r} is {_kind(value)}, so it has no [{step}]")
            if step >= len(value):
                elements = counted(len(value), "element")
                raise _missing(placeholder, f"{seen!r} has {elements}, so no [{step}]")
            seen += f"[{step}]"
        value = value[step]
    return value


def _index(placeholder: Placeholder, values: Mapping[str, Any]) -> int:
    index = values.get(INDEX)
    if isinstance(index, int) and not isinstance(index, bool) and index >= 0:
        return index
    raise _missing(placeholder, "[index] is the index of a for_each's element, and there is none")


def parsed_text(text: str, parsed: dict[int, Any] | None = None) -> Any:
    """Parse a string that contains a JSON object or list.

    Thoughts before the JSON and a Markdown fence around the JSON are left out. Any other string is
    returned as it is.
    """
    return _parse(text, {} if parsed is None else parsed)


def _tokens(template: str) -> Iterator[str | Placeholder]:
    """Yield the literal strings and the placeholders of a template, in order."""
    position = 0
    # The braces that are open; True stands for an escaped brace. In JSON such as {"a": {"b": 1}},
    # each of the two braces at the end closes one brace. So }} stands for one literal brace only if
    # the last open brace is escaped, or if no brace is open.
    open_braces: list[bool] = []
    known: dict[str, Placeholder] = {}  # most prompts repeat few placeholders
    while match := _TOKEN.search(template, position):
        if match.start() > position:
            yield template[position : match.start()]
        position = match.end()
        brace = match.group()
        doubled = template.startswith(brace, position)
        if match[1]:
            if brace not in known:
                known[brace] = Placeholder(root=match[1], path=_steps(match[2]), text=brace)
            yield known[brace]
            continue
        if brace == "{":
            open_braces.append(doubled)
        else:
            doubled = (open_braces.pop() if open_braces else True) and doubled
        position += doubled
        yield brace
    if position < len(template):
        yield template[position:]


def _steps(path: str) -> tuple[str | int, ...]:
    return tuple(
        match[1] or (INDEX_STEP if match[2] == INDEX else int(match[2]))
        for match in _STEP.finditer(path)
    )


def _parse(text: str, parsed: dict[int, Any]) -> Any:
    """Return the JSON object or array that a string contains, or the string itself."""
    key = id(text)
    if key not in parsed:
        parsed[key] = text
        bare = bare_json(text)
        if bare[:1] in ("{", "[") and len(bare) <= MAX_PARSED_CHARS:
            # A text stays a string if it is not JSON, or if it cannot be kept exactly.
            with contextlib.suppress(InvalidJson):
                parsed[key] = read_json(bare)
    return parsed[key]


def _as_json(placeholder: Placeholder, value: Any) -> str:
    try:
        return write_json(value).decode()
    except InvalidJson as error:
        raise _missing(placeholder, f"it cannot be written as JSON: {error}") from error


def _missing(placeholder: Placeholder, problem: str) -> MissingInput:
    text = placeholder.text
    shown = text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
    return MissingInput(f"placeholder {shown}: {problem}")


def _missing_key(
    placeholder: Placeholder, seen: str, key: str, known: Mapping[str, Any]
) -> MissingInput:
    if seen:
        problem = f"{seen!r} has no key {key!r}; its keys are {listed(known)}"
    else:
        problem = f"there is no {key!r}, neither in the input nor among the outputs; there is "
        problem += listed(known)
    return _missing(placeholder, problem + did_you_mean(key, known))


def _kind(value: Any) -> str:
    """Describe the type of a JSON value."""
    if value is None or isinstance(value, bool):
        return write_json(value).decode()
    names = {str: "a string", dict: "an object", list: "a list", tuple: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a number")

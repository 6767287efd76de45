"""The attachments of an agent: images, PDFs and texts that are sent with the agent's prompt.

An entry of ``attachments`` is a string or a mapping. A string has placeholders, such as
``"{invoice}"``. A mapping gives the place of the file: ``{"url": ...}``, ``{"base64": ...}`` or
``{"path": "{folder}/invoice.pdf"}``. If an entry is one placeholder whose value is a list, each
element of the list is an attachment.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from app.domain.agent import Agent
from app.domain.prompt import look_up, malformed_placeholders, placeholders, render
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import AttachmentRefused

Place = Literal["path", "url", "base64"]
PLACES: tuple[Place, ...] = get_args(Place)
DETAILS = ("low", "high")
MAX_ENTRIES = 100
_KEYS = (*PLACES, "detail")
_URL_STARTS = ("http://", "https://")
_DATA_URL = "data:"
FIELD = "attachments"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The source of one attachment.

    Attributes:
        entry: The entry of the agent, such as ``attachments[0]``, for error messages.
        place: Kind of the value.
        value: A path in the workers' folder, a URL, or base64.
        detail: Level of detail of an image, or None.
    """

    entry: str
    place: Place
    value: str
    detail: str | None = None


def templates_of(agent: Agent) -> Iterator[tuple[str, str]]:
    """Yield each template of an agent's attachments, with the path of the template's field."""
    for index, entry in enumerate(agent.attachments):
        yield f"{FIELD}[{index}]", _template(entry)


def find_problem(entry: object) -> str | None:
    """Find a problem of an entry; the values of the entry's placeholders are not known here."""
    if isinstance(entry, Mapping):
        if unknown := next((key for key in entry if key not in _KEYS), None):
            return (
                f"has the key {shortened(unknown)}: give one of {listed(PLACES)}, and detail if "
                f"it is an image{did_you_mean(str(unknown), _KEYS)}"
            )
        if sum(place in entry for place in PLACES) != 1:
            return f"is {shortened(entry)}: give exactly one of the keys {listed(PLACES)}"
        detail = entry.get("detail")
        if detail is not None and detail not in DETAILS:
            return f"has the detail {shortened(detail)}: give one of {listed(DETAILS)}"
        entry = _template(entry)
    if not isinstance(entry, str) or not entry.strip():
        return (
            f'is {shortened(entry)}: give a string, such as "{{invoice}}", or a mapping with one '
            f"of the keys {listed(PLACES)}"
        )
    if malformed := malformed_placeholders(entry):
        return f"contains {shortened(malformed[0])}, which is not a placeholder: write {{name}}"
    return None


def value_problem(value: Any) -> str | None:
    """Find a problem of the value of an entry that is only one placeholder."""
    values = value if isinstance(value, list | tuple) else [value]
    if len(values) > MAX_ENTRIES:
        return f"is a list of {len(values):,} attachments, the limit is {MAX_ENTRIES}"
    wrong = next((each for each in values if each is not None and not isinstance(each, str)), None)
    if wrong is None and not any(isinstance(each, str) and not each.strip() for each in values):
        return None
    return (
        f"is {shortened(value)}: give a path, a URL or a data URL with base64, or a list of these"
    )


def sources_of(
    agent: Agent, values: Mapping[str, Any], *, absent: Container[str] = ()
) -> list[Source]:
    """Return the sources of an agent's attachments, in order.

    Args:
        agent: The agent.
        values: JSON values by root, as for ``app.domain.prompt.render``.
        absent: Roots whose agent ended without an output. If an entry is only a placeholder with
            such a root, the entry has no attachment. An entry with the value null has no attachment
            either.

    Raises:
        MissingInput: If a placeholder has no value.
        AttachmentRefused: If the value of a placeholder cannot be an attachment.
    """
    found: list[Source] = []
    for index, entry in enumerate(agent.attachments):
        name = f"{FIELD}[{index}]"
        found += (_source(name, entry, value) for value in _values(name, entry, values, absent))
    if len(found) > MAX_ENTRIES:
        raise AttachmentRefused(
            f"the agent has {len(found):,} attachments, the limit is {MAX_ENTRIES}: use a for_each"
        )
    return found


def _values(name: str, entry: Any, values: Mapping[str, Any], absent: Container[str]) -> list[str]:
    template = _template(entry)
    places = placeholders(template)
    if len(places) != 1 or places[0].text != template:
        return [render(template, values, absent=absent)]
    value = None if places[0].root in absent else look_up(places[0], values)
    if problem := value_problem(value):
        raise AttachmentRefused(f"{name}: the value of {template} {problem}")
    each = value if isinstance(value, list | tuple) else [value]
    return [one for one in each if one is not None]


def _source(name: str, entry: Any, value: str) -> Source:
    detail = entry.get("detail") if isinstance(entry, Mapping) else None
    place: Place = "path"
    if isinstance(entry, Mapping):
        place = next(place for place in PLACES if place in entry)
    elif value.lower().startswith(_URL_STARTS):
        place = "url"
    elif value.startswith(_DATA_URL):
        place = "base64"
    if place == "base64" and value.startswith(_DATA_URL):
        head, _, value = value.partition(",")
        if not head.endswith(";base64"):
            raise AttachmentRefused(f"{name}: the data URL is not in base64: write data:;base64,")
    return Source(entry=name, place=place, value=value, detail=detail)


def _template(entry: Any) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    return next((entry[place] for place in PLACES if place in entry), "")

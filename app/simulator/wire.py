"""Code that the protocol modules share: the interface, checks of fields, and stream pieces."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.simulator.chat import Answer, ChatRequest, Refusal
from app.simulator.ledger import Record
from app.simulator.limits import Charge, Excess, MeterState

_TEXTS = ("text", "input_text", "output_text")
PIECE_CHARS = 24
"""Characters of one streamed piece: about six tokens, as in the providers' streams under load."""


@dataclass(frozen=True, slots=True)
class Event:
    """Bytes of one or more server-sent events.

    `output_tokens` is the number of output tokens that are sent up to the end of these events.
    """

    data: bytes
    output_tokens: int


class Wire(Protocol):
    """One provider's protocol."""

    provider: str
    request_id_header: str

    def key_in(self, headers: Mapping[str, str]) -> str:
        """Return the API key that a request carries, or an empty string."""

    def parse(self, body: Any) -> ChatRequest:
        """Read a request body.

        Raises:
            Refusal: If the provider would refuse the body with 400.
        """

    def charge(self, answer: Answer) -> Charge:
        """Return the amounts that the provider counts against its limits."""

    def over_limit(self, excess: Excess, model: str) -> Refusal:
        """Make the error 429 for a request that a limit refused."""

    def answer(self, answer: Answer) -> bytes:
        """Make the JSON body of a successful response."""

    def events(self, answer: Answer) -> list[Event]:
        """Make the events of a successful stream."""

    def error(self, refusal: Refusal, record: Record) -> bytes:
        """Make the JSON body of an error."""

    def error_in_200(self, refusal: Refusal, record: Record) -> bytes:
        """Make the JSON body of an answer with status 200 that reports an error."""

    def error_event(self, refusal: Refusal, record: Record) -> bytes:
        """Make the event of an error in the middle of a stream."""

    def limit_headers(self, states: Sequence[MeterState]) -> dict[str, str]:
        """Make the rate-limit headers; the result is empty if there are no limits."""

    def retry_headers(self, retry_after_s: float) -> dict[str, str]:
        """Make the Retry-After headers."""


class CountingWire(Wire, Protocol):
    """A protocol with an endpoint that counts the tokens of a prompt."""

    def parse_count(self, body: Any) -> ChatRequest:
        """Read the body of a request that only counts.

        Raises:
            Refusal: If the provider would refuse the body with 400.
        """

    def count(self, input_tokens: int) -> bytes:
        """Make the JSON body of a count."""


def bearer_in(headers: Mapping[str, str]) -> str:
    """Return the bearer token of the Authorization header, or an empty string."""
    return headers.get("Authorization", "").removeprefix("Bearer").strip()


def as_object(body: Any) -> Mapping[str, Any]:
    """Check that a body is a JSON object.

    Raises:
        Refusal: If the body is not an object.
    """
    if not isinstance(body, dict):
        raise Refusal(400, "We could not parse the JSON body of your request: expected an object.")
    return body


def refuse_others(body: Mapping[str, Any], known: Collection[str], problem: str) -> None:
    """Check that a body has only known fields.

    Args:
        body: The body.
        known: The fields that the body may have.
        problem: The provider's text about a field, with `{name}` in the place of the field's name.

    Raises:
        Refusal: If the body has a field that is not known.
    """
    for name in body:
        if name not in known:
            raise Refusal(400, problem.format(name=name), param=name)


def objects_in(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return a list of objects; if the field is missing, return an empty list.

    Raises:
        Refusal: If the field is not a list of objects.
    """
    value = body.get(name) or []
    if not isinstance(value, list):
        raise Refusal(400, f"Invalid {name!r}: expected an array, got {value!r}.")
    return [as_object(item) for item in value]


def object_in(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object; if the field is missing, return an empty object.

    Raises:
        Refusal: If the field is not an object.
    """
    return as_object(body.get(name) or {})


def field(body: Mapping[str, Any], name: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
    """Return a required field that has a type of ``kind``.

    Raises:
        Refusal: If the field is missing or empty, or has another type.
    """
    value = body.get(name)
    if not isinstance(value, kind) or not value:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        needed = " or ".join(each.__name__ for each in kinds)
        raise Refusal(400, f"{name}: a non-empty {needed} is required, got {value!r}.")
    return value


def token_limit(body: Mapping[str, Any], name: str) -> int | None:
    """Return a number of tokens, or None if the field is missing.

    Raises:
        Refusal: If the field is not a positive whole number.
    """
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refusal(400, f"Invalid {name!r}: expected an integer >= 1, got {value!r}.")
    return value


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is a string or a list with text parts.

    The Responses API calls these parts `input_text` and `output_text`.

    Raises:
        Refusal: If the content is neither a string nor a list.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Refusal(400, f"Invalid content: expected a string or an array, got {content!r}.")
    parts = [part for part in content if isinstance(part, dict) and part.get("type") in _TEXTS]
    return "\n".join(str(part.get("text", "")) for part in parts)


def pieces(text: str) -> Iterator[tuple[str, int]]:
    """Yield each streamed piece of a text, with the number of tokens up to the piece's end."""
    size = 0
    for start in range(0, len(text), PIECE_CHARS):
        piece = text[start : start + PIECE_CHARS]
        size += len(piece.encode("utf-8", "replace"))
        yield piece, (size + 3) // 4


def compact(value: Any) -> str:
    """Write JSON without spaces, like the APIs."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

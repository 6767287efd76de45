"""The corpus of recorded answers under tests/wire/answers, and a server that gives them.

Each file has the answers of one provider or server, written anew from public documentation, issues
and recorded tests, with the place of each. ``expect`` says how an answer is to be read, at the
prices of ``PRICE``.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from app.costs.price import Price
from app.domain.usage import Usage
from tests.support.wire_server import provider_server

ANSWERS = Path(__file__).parents[1] / "wire" / "answers"
_PER_TOKEN = Decimal("0.000001")
PRICE = Price(
    version="corpus",
    input=1 * _PER_TOKEN,
    cached_input=Decimal("0.1") * _PER_TOKEN,
    cache_write=Decimal("1.25") * _PER_TOKEN,
    cache_write_1h=2 * _PER_TOKEN,
    output=10 * _PER_TOKEN,
    citation=2 * _PER_TOKEN,
    web_search=Decimal("0.01"),
)
_MARKER = re.compile(r"\[\[answer:([\w-]+)/(\w+)\]\]")
_TOKENS = {
    "input": "input_tokens",
    "cached": "cached_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
    "citations": "citation_tokens",
    "searches": "web_searches",
}


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One recorded answer.

    Attributes:
        provider: Name of the provider, which is also the file's name.
        protocol: ``openai``, ``responses`` or ``anthropic``.
        shape: The answer, its source and what is expected of it.
    """

    provider: str
    protocol: str
    shape: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Provider and name, which no other answer has."""
        return f"{self.provider}/{self.shape['name']}"

    @property
    def streamed(self) -> bool:
        """Whether a stream is asked for; some servers answer in the other way."""
        return bool(self.shape["request"]["stream"])

    @property
    def expect(self) -> Mapping[str, Any]:
        """How the answer is to be read."""
        found: Mapping[str, Any] = self.shape["expect"]
        return found

    @property
    def prompt(self) -> str:
        """A prompt to which the server gives this answer, as long as the recorded one could be."""
        tokens: Mapping[str, int] = self.expect.get("tokens") or {}
        return "." * sum(tokens.values()) + f"[[answer:{self.name}]]"

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools of the request."""
        return [
            {"name": name, "description": name, "parameters": {"type": "object", "properties": {}}}
            for name in self.shape["request"].get("tools", ())
        ]

    @property
    def usage(self) -> Usage | None:
        """The tokens that the answer counts, or None if nothing is expected of them."""
        tokens = self.expect.get("tokens")
        return tokens and Usage(**{_TOKENS[name]: count for name, count in tokens.items()})


@cache
def corpus() -> tuple[Recorded, ...]:
    """Return all recorded answers."""
    return tuple(
        Recorded(provider=file["provider"], protocol=file["protocol"], shape=shape)
        for path in sorted(ANSWERS.glob("*.json"))
        for file in [json.loads(path.read_text())]
        for shape in file["shapes"]
    )


def skeleton(value: Any) -> Any:
    """Return the form of an answer without its values; equal elements of a list count once."""
    if isinstance(value, Mapping):
        return {key: skeleton(part) for key, part in sorted(value.items())}
    if isinstance(value, list):
        forms = [skeleton(part) for part in value]
        return [form for place, form in enumerate(forms) if form not in forms[:place]]
    return type(value).__name__


def content_of(shape: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the body of an answer and its content type."""
    if "events" in shape:
        return b"".join(map(_event, shape["events"])), "text/event-stream"
    if "text" in shape:
        text = shape["text"]
        kind = "text/html" if text.lstrip().startswith("<") else "application/json"
        return text.encode("utf-8", "surrogateescape"), kind
    return json.dumps(shape["body"], ensure_ascii=False).encode("utf-8", "surrogatepass"), (
        "application/json"
    )


@asynccontextmanager
async def answering(answers: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[str]:
    """Run a server that gives the answer whose name is in the prompt; yield its URL."""

    async def handle(request: web.Request) -> web.Response:
        found = _MARKER.findall(await request.text())
        shape = answers["/".join(found[-1])]
        content, kind = content_of(shape)
        headers = {"content-type": kind, **shape.get("headers", {})}
        return web.Response(body=content, status=shape.get("status", 200), headers=headers)

    async with provider_server(handle) as url:
        yield url


def _event(event: Mapping[str, Any]) -> bytes:
    if "comment" in event:
        return f": {event['comment']}\n\n".encode()
    name = f"event: {event['event']}\n" if "event" in event else ""
    data = event.get("data", "")
    text = data if isinstance(data, str) else json.dumps(data)
    # The bytes of a character that is cut are written as the surrogates U+DC80 to U+DCFF.
    return f"{name}data: {text}\n\n".encode("utf-8", "surrogateescape")

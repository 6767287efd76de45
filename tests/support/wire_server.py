"""A provider that answers with the files under tests/wire.

Each file is a conversation, written from the providers' reference pages (developers.openai.com/api,
platform.claude.com/docs/en/api; 2026). The file contains the answers to the requests, one after the
other. A ``whole`` answer has status, headers and body; a ``stream`` has server-sent events instead
of a body. ``cut`` ends the connection in the middle.
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from tests.support.http_server import serving_on_a_port

WIRE = Path(__file__).parents[1] / "wire"
# Slices do not end where events or characters end, so the reader has to put these together.
SLICE_BYTES = 23
#: The paths of calls, and those of the requests that count the tokens of a prompt.
CALLS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
COUNTS = ("/v1/responses/input_tokens", "/v1/messages/count_tokens")


@dataclass
class WireServer:
    """A running server, and the requests that it has received."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)


@cache
def shapes(protocol: str, name: str) -> dict[str, list[dict[str, Any]]]:
    """Return the answers of a conversation, by ``whole`` and ``stream``."""
    found: dict[str, list[dict[str, Any]]] = json.loads(
        (WIRE / protocol / f"{name}.json").read_text()
    )
    return found


def names(protocol: str) -> list[str]:
    """Return the names of all conversations."""
    return sorted(file.stem for file in (WIRE / protocol).glob("*.json"))


def as_it_is(_: dict[str, Any]) -> None:
    """Leave an answer as it is in its file."""


@asynccontextmanager
async def serving(
    protocol: str, name: str, change: Callable[[dict[str, Any]], None] = as_it_is
) -> AsyncIterator[WireServer]:
    """Run a server of one conversation, on a free port of this machine.

    Args:
        protocol: Folder of the conversation.
        name: Name of the conversation.
        change: Changes the body of an answer, or the data of one of its events, in place.
    """
    server = WireServer()

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        said = shapes(protocol, name)
        # A request for a stream also gets a plain answer if the answer is an error.
        answers = said.get("stream" if body.get("stream") else "whole") or said["whole"]
        answer = deepcopy(answers[len(server.requests)])
        for data in [event["data"] for event in answer.get("events", ())] or [answer["body"]]:
            if isinstance(data, dict):
                change(data)
        server.requests.append(body)
        server.headers.append({name.lower(): value for name, value in request.headers.items()})
        server.queries.append(dict(request.query))
        return await give(request, answer)

    async with provider_server(handle) as server.url:
        yield server


@asynccontextmanager
async def provider_server(handle: Handler, paths: Sequence[str] = CALLS) -> AsyncIterator[str]:
    """Run a server on a free port of this machine; yield its URL.

    Args:
        handle: Answers the requests.
        paths: Paths of the requests; by default, those of calls of every form.
    """
    application = web.Application()
    for path in paths:
        application.router.add_post(path, handle)
    async with serving_on_a_port(application) as url:
        yield url


async def give(request: web.Request, answer: dict[str, Any]) -> web.StreamResponse:
    """Answer a request in the form of the files, whole or as a stream."""
    headers = dict(answer["headers"])
    if "events" not in answer:
        content = json.dumps(answer["body"]).encode()
        return web.Response(body=content, status=answer["status"], headers=headers)
    response = web.StreamResponse(status=answer["status"], headers=headers)
    await response.prepare(request)
    content = b"".join(map(_event, answer["events"]))
    for start in range(0, len(content), SLICE_BYTES):
        await response.write(content[start : start + SLICE_BYTES])
    if answer.get("cut"):
        assert request.transport is not None
        request.transport.close()
    return response


def _event(event: dict[str, Any]) -> bytes:
    name = f"event: {event['event']}\n" if "event" in event else ""
    data = event["data"]
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"{name}data: {text}\n\n".encode()

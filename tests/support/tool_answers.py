"""Recorded answers with tools of the provider, one after the other, for the real SDKs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from app.llm.base import LLMResponse, Message
from tests.support.answers import corpus
from tests.support.llm_clients import client_of
from tests.support.wire_server import provider_server

QUESTION: Message = {"role": "user", "content": "Who won?"}


def recorded(name: str) -> dict[str, Any]:
    """Return the body of a recorded answer."""
    (found,) = [one for one in corpus() if one.name == name]
    body: dict[str, Any] = found.shape["body"]
    return body


@asynccontextmanager
async def answering(*bodies: dict[str, Any]) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Run a server with these answers, in order; yield its URL and the requests it gets."""
    requests: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        requests.append(await request.json())
        return web.json_response(bodies[len(requests) - 1])

    async with provider_server(handle) as url:
        yield url, requests


async def ask(
    form: str, url: str, model: str, tools: Sequence[Any], messages: Sequence[Message] = (QUESTION,)
) -> LLMResponse:
    """Ask a server with these tools."""
    client = client_of(form, url)
    try:
        return await client.complete_with_tools(messages, model, tools, max_tokens=500)
    finally:
        await client.close()

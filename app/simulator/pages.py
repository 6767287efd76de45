"""The tools of the simulated provider: searches of the web, fetched pages, and programs."""

import re

from app.simulator.chat import ChatRequest, ServerCall
from app.simulator.facts import digest_of
from app.simulator.markers import Marker, without_markers

_URL = re.compile(r"https?://[^\s\"'<>)\]]+")
_QUERY_CHARS = 60
_PAGE_CHARS = 2000
_OUTPUT_CHARS = 200


def server_calls(request: ChatRequest, marker: Marker) -> tuple[ServerCall, ...]:
    """Make the uses of the provider's tools in a reply.

    Each tool is used once, or as often as the marker says, within the bound of the request. After a
    reply in which tools ran, the tools run again only if that reply was paused. In a request to
    OpenAI, one limit counts the uses of all tools.

    Args:
        request: the request.
        marker: the merged markers of the prompt.
    """
    pauses = (marker.pauses or 0) if request.provider == "anthropic" else 0
    if request.server_turns > pauses:
        return ()
    calls = tuple(
        _call(request, name, number, failed=number < (marker.search_errors or 0))
        for name, most in request.server_tools
        for number in range(min(most, _wanted(name, marker)))
    )
    together = max((most for _, most in request.server_tools), default=0)
    return calls[:together] if request.provider == "openai" else calls


def _wanted(name: str, marker: Marker) -> int:
    wanted = marker.programs if name == "code_execution" else marker.searches
    return 1 if wanted is None else wanted


def _call(request: ChatRequest, name: str, number: int, *, failed: bool) -> ServerCall:
    question = without_markers(request.question)
    digest = digest_of(f"{request.server_turns}/{name}/{number}/{question}")
    page = f"https://example.com/{digest}"
    arguments = {"query": question[:_QUERY_CHARS]}
    if name == "web_fetch":
        page = next(iter(_URL.findall(question)), page)
        arguments = {"url": page}
    if name == "code_execution":
        program, output = f"print({digest!r})", f"{digest} {question}"[:_OUTPUT_CHARS]
        return ServerCall(
            id=digest, name=name, arguments={"code": program}, page="", text=output, failed=failed
        )
    text = f"{question} {digest} " * (_PAGE_CHARS // (len(question) + len(digest) + 2) + 1)
    return ServerCall(
        id=digest, name=name, arguments=arguments, page=page, text=text[:_PAGE_CHARS], failed=failed
    )

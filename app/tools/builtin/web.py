"""The tools ``http_request`` and ``fetch_page``, which use the web within the operator's rules."""

from collections.abc import Sequence
from typing import TypedDict

from yarl import URL

from app.concurrency.user_code import run_in_thread
from app.configuration.sections import HttpTools
from app.domain.suggestions import shortened
from app.domain.tool_context import ToolContext
from app.errors import ToolError
from app.outbound.fetching import Fetcher, WebAnswer, WebRequest
from app.sandbox.processes import Sandbox, SandboxLimit
from app.sandbox.turns import Turn
from app.tools.tool import BuiltinTool, Tool

FIRST_ERROR = 400
#: Only the beginning of a longer page is read.
MAX_PAGE_CHARS = 1_000_000
#: In the sandbox, all pages together count as one tenant, and each host counts as a run.
PAGES = "pages of the web"
#: A repeated request with one of these methods changes nothing.
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
#: The header by which a server knows a repeated request.
KEY_HEADER = "Idempotency-Key"
SHOWN_HEADERS = ("content-type", "etag", "last-modified", "link", "location", "retry-after")
HTML = ("text/html", "application/xhtml+xml", "")
TEXTS = ("application/json", "application/xml", "application/javascript", "application/yaml")
# The tool's timeout is longer than the request's timeout, so the model gets the request's error.
MARGIN_S = 10.0


class HttpAnswer(TypedDict):
    """The part of an answer that the model gets."""

    status: int
    url: str
    headers: dict[str, str]
    body: str


class WebTools:
    """The tools that use the web.

    Args:
        fetcher: Object that makes the requests.
        sandbox: Reads HTML.
    """

    def __init__(self, fetcher: Fetcher, sandbox: Sandbox) -> None:
        self._fetcher = fetcher
        self._sandbox = sandbox

    async def http_request(
        self,
        url: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | None = None,
        *,
        context: ToolContext | None = None,
    ) -> HttpAnswer:
        """Make an HTTP request to a public address and get status, headers and body.

        Args:
            url: Full URL, with http:// or https://.
            method: HTTP method, such as GET; the operator chooses the allowed methods.
            headers: Further headers by name.
            body: Text to send.
            context: The call, whose key goes to the server if the request changes something.
        """
        method, sent = method.upper(), dict(headers or {})
        named = any(name.lower() == KEY_HEADER.lower() for name in sent)
        if context is not None and method not in SAFE_METHODS and not named:
            sent[KEY_HEADER] = context.idempotency_key
        request = WebRequest(url=url, method=method, headers=sent, body=body)
        answer = await self._fetcher.fetch(request)
        return {
            "status": answer.status,
            "url": answer.url,
            "headers": {
                name: value for name, value in answer.headers.items() if name in SHOWN_HEADERS
            },
            "body": await run_in_thread(lambda: _body(answer)),
        }

    async def fetch_page(self, url: str) -> str:
        """Read a page of the web as plain text, without menus, advertisements and scripts.

        Args:
            url: Full URL, with http:// or https://.
        """
        answer = await self._fetcher.fetch(WebRequest(url=url, headers={}))
        if answer.status >= FIRST_ERROR:
            raise ConnectionError(f"{shortened(answer.url)} answered with status {answer.status}")
        if answer.content_type not in HTML:
            return await run_in_thread(lambda: _body(answer))
        return await self._readable(answer) + _note(answer)

    async def _readable(self, answer: WebAnswer) -> str:
        """Return the main text of a page in Markdown, or the whole text if it has no main part."""
        page = (await run_in_thread(answer.text))[:MAX_PAGE_CHARS]
        task = {"page": page, "url": answer.url}
        try:
            kind, text = await self._sandbox.run(
                "page", task, Turn(PAGES, URL(answer.url).raw_host)
            )
        except SandboxLimit as error:
            raise ValueError(
                f"the reading of {shortened(answer.url)} {error}: read another page, or use "
                "http_request"
            ) from error
        if kind == "ERROR":
            raise ToolError(f"{shortened(answer.url)} cannot be read: {text}")
        return str(text)


def web_tools(rules: HttpTools, sandbox: Sandbox) -> Sequence[Tool]:
    """Make the tools that use the web, with the operator's rules."""
    tools = WebTools(Fetcher(rules), sandbox)
    timeout_s = rules.timeout_s + MARGIN_S
    hosts = f"Allowed hosts: {', '.join(rules.allowed_hosts)}." if rules.allowed_hosts else ""
    request = BuiltinTool(
        tools.http_request,
        timeout_s=timeout_s,
        idempotent=SAFE_METHODS.issuperset(rules.methods),
        more=f"Allowed methods: {', '.join(rules.methods)}. {hosts}",
    )
    return request, BuiltinTool(tools.fetch_page, timeout_s=timeout_s, idempotent=True, more=hosts)


def _body(answer: WebAnswer) -> str:
    kind = answer.content_type
    if (
        kind
        and not kind.startswith("text/")
        and kind not in TEXTS
        and not kind.endswith(("+json", "+xml"))
    ):
        return (
            f"(content of type {kind} is not shown, because it is not text)" if answer.body else ""
        )
    return answer.text() + _note(answer)


def _note(answer: WebAnswer) -> str:
    if not answer.is_cut:
        return ""
    return f"\n[cut: only the first {len(answer.body):,} bytes of the answer were read]"

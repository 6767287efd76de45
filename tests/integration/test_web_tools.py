"""The tools of the web against a hostile server."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

from app import ToolContext
from app.configuration.sections import HttpTools
from app.errors import AddressRefused
from app.outbound.fetching import Fetcher, WebRequest
from app.sandbox.processes import Sandbox
from app.tools.builtin.web import WebTools, web_tools
from tests.support.endless_server import endless
from tests.support.http_server import serving_on_a_port

pytestmark = pytest.mark.anyio

PAGE = """<html><head><title>Prices</title><script>evil()</script></head><body>
<nav><a href="/home">Home</a><a href="/login">Log in</a></nav>
<article><h1>Prices of desks</h1><p>A desk of oak costs 300 euros, and it is delivered within a
week to every address in the country, as it always was.</p><p>More about <a href="/oak">oak</a>,
which is a wood that many people like because it lasts for very long.</p></article>
<footer>Imprint</footer></body></html>"""


# Python's codec takes the part after the last hyphen for numbers, and inserts a character for each.
PUNYCODE = f"{PAGE}-{'a' * 400_000}"


OWN_KEY = {"idempotency-key": "mine"}


class Server:
    """A server that records its requests, and answers by path."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.port = 0
        self.left = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        match request.path:
            case "/page":
                return web.Response(text=PAGE, content_type="text/html")
            case "/json":
                return web.json_response({"body": await request.text()})
            case "/large":
                return web.Response(text="x" * 5000)
            case "/bomb" | "/punycode" | "/costly":
                return hostile(request)
            case "/image":
                return web.Response(body=b"\x89PNG", content_type="image/png")
            case "/redirect":
                raise web.HTTPFound(request.query["to"])
            case "/keep":
                raise web.HTTPTemporaryRedirect(request.query["to"])
            case "/loop":
                raise web.HTTPFound("/loop")
            case "/never":
                await self.left.wait()
        raise web.HTTPNotFound


def hostile(request: web.Request) -> web.Response:
    """An answer that is small on its way, and that costs much to read."""
    if request.path == "/bomb":
        body = gzip.compress(b"x" * 50_000_000)
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        return web.Response(body=body, headers=headers)
    if request.path == "/punycode":
        headers = {"Content-Type": f"{request.query['type']}; charset=punycode"}
        return web.Response(body=PUNYCODE.encode(), headers=headers)
    attributes = " ".join(f"a{number}=1" for number in range(100_000))
    return web.Response(text=f"<p {attributes}>x</p>", content_type="text/html")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    found = Sandbox()
    yield found
    found.close()


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    async with serving_on_a_port(application, shutdown_timeout=0) as url:
        server.port = int(url.rsplit(":", 1)[1])
        yield server
        server.left.set()


def rules(**others: Any) -> HttpTools:
    fields: dict[str, Any] = {"allowed_networks": (ip_network("127.0.0.1/32"),)}
    return HttpTools(**(fields | {"max_bytes": 1000, "timeout_s": 5} | others))


def get(url: str, **fields: Any) -> WebRequest:
    return WebRequest(url=url, **({"headers": {}} | fields))


async def test_a_request_brings_status_headers_and_body(server: Server, sandbox: Sandbox) -> None:
    tools = WebTools(Fetcher(rules(methods=("POST",))), sandbox)

    answer = await tools.http_request(
        f"{server.url}/json", method="post", headers={"X-Key": "k"}, body="hello"
    )

    assert answer["status"] == 200
    assert answer["body"] == '{"body": "hello"}'
    assert answer["headers"] == {"content-type": "application/json; charset=utf-8"}
    assert server.seen[0].headers["X-Key"] == "k"


async def test_a_request_that_changes_something_says_the_key_of_its_call(
    server: Server, sandbox: Sandbox
) -> None:
    request, _ = web_tools(rules(methods=("GET", "POST")), sandbox)
    context = ToolContext(run_id="r", workflow="w", agent="a", attempt=1, idempotency_key="k1")
    for given in ({"method": "POST"}, {"method": "GET"}, {"method": "POST", "headers": OWN_KEY}):
        text = json.dumps({"url": f"{server.url}/json", **given})

        output = await request.call(text, context=context)

        assert not output.is_error, output.text
    assert "context" not in request.parameters["properties"]
    keys = [seen.headers.getall("Idempotency-Key", []) for seen in server.seen]
    assert keys == [["k1"], [], ["mine"]]


async def test_methods_and_headers_that_are_not_allowed_are_refused(server: Server) -> None:
    fetcher = Fetcher(rules())

    with pytest.raises(ValueError, match="'DELETE' is not allowed: use one of 'GET', 'HEAD'"):
        await fetcher.fetch(get(server.url, method="DELETE"))
    for name in ("Host ", "Transfer-Encoding ", "Host", "content-length", "Proxy-Authorization"):
        with pytest.raises(ValueError, match=r"not a valid name|belongs to the connection"):
            await fetcher.fetch(get(server.url, headers={name: "x"}))
    with pytest.raises(ValueError, match="one line of text"):
        await fetcher.fetch(get(server.url, headers={"X": "a\r\nHost: b"}))
    assert server.seen == []


async def test_a_private_address_is_refused_before_anything_is_sent(
    server: Server, sandbox: Sandbox
) -> None:
    tools = WebTools(Fetcher(HttpTools()), sandbox)

    for url in (f"{server.url}/json", f"http://localhost:{server.port}/json"):
        with pytest.raises(AddressRefused, match="not public"):
            await tools.http_request(url)

    assert server.seen == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2/", "http://169.254.169.254/latest/", "http://[::1]/", "file:///etc"]
)
async def test_a_redirect_to_a_private_address_is_refused(server: Server, url: str) -> None:
    with pytest.raises(AddressRefused):
        await Fetcher(rules()).fetch(get(f"{server.url}/redirect?to={url}"))

    assert len(server.seen) == 1


async def test_only_hosts_that_are_listed_may_be_reached_also_by_redirects(server: Server) -> None:
    fetcher = Fetcher(rules(allowed_hosts=("127.0.0.1", "*.shop.example")), lookup=loopback)

    assert (await fetcher.fetch(get(f"http://a.shop.example:{server.port}/json"))).status == 200
    for url in ("http://shop.example.evil.test/", "http://evil.test/"):
        with pytest.raises(AddressRefused, match="is not allowed: use one of"):
            await fetcher.fetch(get(url))
    with pytest.raises(AddressRefused, match=r"'evil\.test' is not allowed"):
        await fetcher.fetch(get(f"{server.url}/redirect?to=http://evil.test/"))


async def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_a_name_is_looked_up_once_and_the_checked_address_is_connected_to(
    server: Server,
) -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    answer = await Fetcher(rules(), lookup=rebinding).fetch(
        get(f"http://rebinding.test:{server.port}/json")
    )

    assert answer.status == 200
    assert next(answers) == ["169.254.169.254"]


async def test_a_redirect_to_another_host_takes_no_credentials_along(server: Server) -> None:
    fetcher = Fetcher(rules(), lookup=loopback)
    headers = {"Authorization": "Bearer secret", "X-Other": "1"}
    there = f"http://other.test:{server.port}/json"

    await fetcher.fetch(get(f"{server.url}/redirect?to={there}", headers=headers))
    await fetcher.fetch(get(f"{server.url}/redirect?to=/json", headers=headers))

    _, elsewhere, _, same = server.seen
    assert "Authorization" not in elsewhere.headers
    assert elsewhere.headers["X-Other"] == "1"
    assert same.headers["Authorization"] == "Bearer secret"


async def test_a_body_is_sent_again_only_where_the_server_says_so(server: Server) -> None:
    fetcher = Fetcher(rules(methods=("POST",)))

    await fetcher.fetch(get(f"{server.url}/redirect?to=/json", method="POST", body="x"))
    await fetcher.fetch(get(f"{server.url}/keep?to=/json", method="POST", body="x"))

    assert [request.method for request in server.seen] == ["POST", "GET", "POST", "POST"]


async def test_redirects_end_somewhere(server: Server) -> None:
    with pytest.raises(ConnectionError, match="the limit is 2 redirects"):
        await Fetcher(rules(max_redirects=2)).fetch(get(f"{server.url}/loop"))

    assert len(server.seen) == 3


@pytest.mark.parametrize("path", ["/large", "/bomb"])
async def test_a_large_answer_is_cut_also_when_it_is_small_on_its_way(
    server: Server, sandbox: Sandbox, path: str
) -> None:
    tools = WebTools(Fetcher(rules(timeout_s=60)), sandbox)

    answer = await tools.http_request(f"{server.url}{path}")

    assert answer["body"] == "x" * 1000 + (
        "\n[cut: only the first 1,000 bytes of the answer were read]"
    )


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
async def test_only_some_responses_may_come_before_the_answer(status: bytes) -> None:
    with (
        endless(b"", b"HTTP/1.1 " + status + b"\r\n\r\n") as server,
        pytest.raises(ConnectionError, match="over 100 responses came before the answer"),
    ):
        await Fetcher(rules(timeout_s=600)).fetch(get(server.url))


async def test_a_server_that_never_answers_is_given_up(server: Server) -> None:
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        await Fetcher(rules(timeout_s=0.05)).fetch(get(f"{server.url}/never"))


async def test_a_server_that_is_not_there_is_an_error_with_its_reason() -> None:
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1"):
        await Fetcher(rules()).fetch(get("http://127.0.0.1:1/"))


async def test_a_page_is_read_as_its_text(server: Server, sandbox: Sandbox) -> None:
    text = await WebTools(Fetcher(rules(max_bytes=100_000)), sandbox).fetch_page(
        f"{server.url}/page"
    )

    assert "A desk of oak costs 300 euros" in text
    assert f"[oak]({server.url}/oak)" in text
    assert "evil" not in text
    assert "Log in" not in text


@pytest.mark.parametrize("kind", ["text/html", "text/plain"])
async def test_a_charset_that_is_none_takes_no_time(
    server: Server, sandbox: Sandbox, kind: str
) -> None:
    tools = WebTools(Fetcher(rules(max_bytes=1_000_000)), sandbox)
    url = f"{server.url}/punycode?type={kind}"
    started_s = time.process_time()

    assert (await tools.http_request(url))["body"] == PUNYCODE
    assert "A desk of oak" in await tools.fetch_page(url)

    # The quadratic codec took over 6 s of CPU time for each of the two texts.
    assert time.process_time() - started_s < 2


async def test_a_page_that_would_be_read_for_minutes_is_given_up(
    server: Server, sandbox: Sandbox
) -> None:
    tools = WebTools(Fetcher(rules(max_bytes=2_000_000, timeout_s=30)), sandbox)
    started_s = time.process_time()

    with pytest.raises(ValueError, match="took over 5 s of CPU time, or too much memory"):
        await tools.fetch_page(f"{server.url}/costly")

    assert time.process_time() - started_s < 2


async def test_what_is_no_page_is_shown_as_it_is_or_not_at_all(
    server: Server, sandbox: Sandbox
) -> None:
    tools = WebTools(Fetcher(rules()), sandbox)

    assert await tools.fetch_page(f"{server.url}/json") == '{"body": ""}'
    assert "image/png" in await tools.fetch_page(f"{server.url}/image")
    with pytest.raises(ConnectionError, match="status 404"):
        await tools.fetch_page(f"{server.url}/nothing")


def test_the_model_is_told_what_the_operator_allows() -> None:
    request, page = web_tools(
        HttpTools(allowed_hosts=("api.example.com",), methods=("GET", "POST")), Sandbox()
    )

    assert request.description.endswith("GET, POST. Allowed hosts: api.example.com.")
    assert (request.name, request.idempotent) == ("http_request", False)
    assert (page.name, page.idempotent) == ("fetch_page", True)
    assert set(request.parameters["properties"]) == {"url", "method", "headers", "body"}

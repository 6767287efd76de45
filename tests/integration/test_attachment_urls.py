"""Attachments from URLs, against a hostile server and hostile addresses."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

from app.attachments.reader import AttachmentReader
from app.concurrency.user_code import run_in_thread
from app.configuration.sections import AttachmentSettings
from app.domain.attachments import Source
from app.errors import AddressRefused, AttachmentRefused, DownloadFailed, HostUnknown
from app.llm.parts import Part, part_of
from tests.support.http_server import serving_on_a_port
from tests.support.media import pdf, png

pytestmark = pytest.mark.anyio

PNG = png(20, 10)
PDF = pdf("Invoice 7")


@dataclass
class Server:
    """A server that counts its requests, and answers by path."""

    port: int = 0
    seen: list[str] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.path)
        match request.path:
            case "/scan":
                return web.Response(body=PNG, content_type="application/zip")
            case "/2026/invoice%207.pdf" | "/2026/invoice 7.pdf":
                return web.Response(body=PDF)
            case "/bomb":
                body = gzip.compress(bytes(50_000_000))
                return web.Response(body=body, headers={"Content-Encoding": "gzip"})
            case "/to":
                raise web.HTTPFound(request.query["url"])
            case "/loop":
                raise web.HTTPFound("/loop")
            case "/busy":
                return web.Response(status=503)
            case "/never":
                await self.left.wait()
        raise web.HTTPNotFound


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    async with serving_on_a_port(application, shutdown_timeout=0) as url:
        server.port = int(url.rsplit(":", 1)[1])
        yield server
        server.left.set()


async def loaded(url: str, *, allow: str | None = "127.0.0.0/8", **rules: Any) -> Part:
    networks = (ip_network(allow),) if allow else ()
    settings = AttachmentSettings(allowed_networks=networks, **rules)
    reader = AttachmentReader(settings, in_thread=run_in_thread, **LOOKUP)
    (part,) = await reader.read([Source(entry="attachments[0]", place="url", value=url)])
    return part


LOOKUP: dict[str, Any] = {}


async def test_a_file_is_loaded_and_told_by_its_bytes_not_by_its_headers(server: Server) -> None:
    assert await loaded(f"{server.url}/scan") == part_of(PNG)
    assert await loaded(f"{server.url}/2026/invoice%207.pdf") == part_of(PDF, name="invoice 7.pdf")
    assert await loaded(f"{server.url}/to?url=/scan") == part_of(PNG)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/scan",
        "http://localhost:{port}/scan",
        "http://[::ffff:127.0.0.1]:{port}/scan",
        "http://2130706433:{port}/scan",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/scan",
        "https://user:secret@example.org/scan",
        "http://127.0.0.1:{port}/scan\r\nHost: evil",
    ],
)
async def test_no_private_address_is_reached(server: Server, url: str) -> None:
    with pytest.raises((AddressRefused, HostUnknown), match=r"attachments\[0\]: the URL"):
        await loaded(url.format(port=server.port), allow=None)

    assert server.seen == []


async def test_a_redirect_to_a_private_address_is_not_followed(server: Server) -> None:
    with pytest.raises(AddressRefused, match="is not public"):
        await loaded(f"{server.url}/to?url=http://169.254.169.254/", allow="127.0.0.1/32")


async def test_a_name_that_leads_to_a_private_address_is_refused() -> None:
    async def rebound(host: str, port: int) -> Sequence[str]:
        return ["93.184.215.14", "127.0.0.1"]

    reader = AttachmentReader(AttachmentSettings(), in_thread=run_in_thread, lookup=rebound)

    with pytest.raises(AddressRefused):
        await reader.read([Source(entry="a", place="url", value="https://files.example.org/x")])


async def test_only_allowed_hosts_are_reached(server: Server) -> None:
    with pytest.raises(AddressRefused, match="is not allowed"):
        await loaded(f"{server.url}/scan", allowed_hosts=["*.example.org"])

    assert server.seen == []


async def test_a_body_that_explodes_is_cut_off_and_refused(server: Server) -> None:
    with pytest.raises(AttachmentRefused, match="more than 1,000,000 bytes"):
        await loaded(f"{server.url}/bomb", max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/gone", AttachmentRefused, "status 404: give a URL that needs no login"),
        ("/busy", DownloadFailed, "status 503"),
        ("/loop", DownloadFailed, "too many redirects"),
        ("/never?token=sk-secret", DownloadFailed, "no whole answer within 0.2 s"),
    ],
)
async def test_a_url_without_a_file_is_refused_and_tried_again_if_that_may_help(
    server: Server, path: str, error: type[AttachmentRefused], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        await loaded(f"{server.url}{path}", timeout_s=0.2 if "never" in path else 20)

    assert type(refused.value) is error
    assert refused.value.retriable is (error is DownloadFailed)
    assert "sk-secret" not in str(refused.value)


async def test_a_server_that_is_away_is_tried_again(server: Server) -> None:
    with pytest.raises(DownloadFailed, match="cannot be loaded"):
        await loaded("http://127.0.0.1:9/scan?token=sk-secret")

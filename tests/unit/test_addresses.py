"""Where agents may go: addresses in all their spellings, and names that change their mind."""

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout

from app.addresses import check_address, url_problem
from app.errors import AddressRefused, ConnectionFailed

pytestmark = pytest.mark.anyio

PRIVATE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.0.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.1.2.3/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://localhost/",
]


@pytest.mark.parametrize("url", PRIVATE)
async def test_addresses_that_are_not_public_are_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(AddressRefused, match="allow_addresses"):
        await check_address(url)


@pytest.mark.parametrize(
    "url",
    ["http://8.8.8.8/", "https://[2606:4700:4700::1111]/a?b=c", "http://[64:ff9b::808:808]/"],
)
async def test_public_addresses_are_permitted(url: str) -> None:
    destination = await check_address(url)

    assert len(destination.addresses) == 1


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "LOCALHOST"])
async def test_what_is_listed_is_permitted(entry: str) -> None:
    destination = await check_address("http://localhost:81/", allow=["10.0.0.0/8", entry, "::1"])

    assert destination.host == "localhost"


async def test_what_is_listed_permits_nothing_else() -> None:
    with pytest.raises(AddressRefused):
        await check_address("http://127.0.0.1/", allow=["10.0.0.0/8", "localhost", "127.0.0.2"])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/",
        "//example.org/",
        "http://",
        "http://a:b/",
        "http://user:hush@example.org/",
        "gopher://127.0.0.1/",
        "",
    ],
)
async def test_what_is_no_plain_web_address_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        await check_address(url)

    assert "hush" not in str(caught.value)
    assert url_problem(url) == str(caught.value)


async def test_a_host_without_an_address_is_a_failed_connection() -> None:
    with pytest.raises(ConnectionFailed, match="has no address"):
        await check_address(f"http://{'a' * 64}.invalid/")


async def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that names a permitted address first, and another one ever after."""
    loop = asyncio.get_running_loop()
    answers = iter(["127.0.0.1", *["192.0.2.1"] * 10])

    async def rebinding(host: str, port: Any, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    url = f"http://rebind.example:{server.sockets[0].getsockname()[1]}/"
    monkeypatch.setattr(loop, "getaddrinfo", rebinding)

    destination = await check_address(url, allow=["127.0.0.1"])
    async with (
        server,
        ClientSession(connector=destination.connector(), timeout=ClientTimeout(total=5)) as session,
        session.get(url) as response,
    ):
        said = await response.text()

    assert said == "hello"
    with pytest.raises(AddressRefused, match=r"192\.0\.2\.1"):
        await check_address(url, allow=["127.0.0.1"])

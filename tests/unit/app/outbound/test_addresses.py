"""Addresses that a URL from outside may lead to."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout

from app.errors import AddressRefused, HostUnknown
from app.outbound.addresses import is_public, look_up, resolve_public, url_problem

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.215.14"


async def public(host: str, port: int) -> Sequence[str]:
    return [PUBLIC]


@pytest.mark.parametrize(
    "address",
    """0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.255.0.1 169.254.169.254 172.16.0.1 192.168.1.1
    192.0.0.192 168.63.129.16 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 100.100.100.200
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 fe80::1 fc00::1 fd00:ec2::254 fec0::1
    ff02::1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 2002:7f00:1:: 2001:0:4136:e378::1
    2001:db8::1""".split(),
)
def test_addresses_that_are_not_public_are_known(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",  # the same in decimal
        "http://0177.0.0.1/",  # in octal
        "http://0x7f.0.0.1/",  # in hexadecimal
        "http://0x7f000001/",
        "http://127.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://localhost:6379/",
        "http://１２７.０.０.１/",  # noqa: RUF001  digits of full width
        "http://169.254.169.254/latest/meta-data/",
    ],
)
async def test_a_url_of_a_private_address_is_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(AddressRefused):
        await resolve_public(url, lookup=look_up)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "not an http or https URL"),
        ("gopher://example.com/", "not an http or https URL"),
        ("//example.com/", "not an http or https URL"),
        ("http:///path", "URL"),
        ("http://user:secret@example.com/", "user or a password"),
        ("http://example.com@127.0.0.1/", "user or a password"),
        ("http://[fe80::1%25eth0]/", "zone"),
        ("http://[::1/", "not a URL"),
        ("http://exa mple.com/\r\nHost: x", "not a URL"),
        ("http://example.com:99999/", "not a URL"),
        ("http://" + "a" * 9000, "8,192"),
    ],
)
async def test_what_is_no_plain_url_of_the_web_is_refused(url: str, reason: str) -> None:
    with pytest.raises(AddressRefused, match=reason) as caught:
        await resolve_public(url, lookup=public)

    assert "secret" not in str(caught.value)


async def test_a_name_with_one_private_address_among_public_ones_is_refused() -> None:
    async def both(host: str, port: int) -> Sequence[str]:
        return [PUBLIC, "10.0.0.1"]

    with pytest.raises(AddressRefused, match=r"has the address 10\.0\.0\.1, which is not public"):
        await resolve_public("https://shop.example/", lookup=both)


async def test_what_the_operator_allows_may_be_reached() -> None:
    networks = [ip_network("127.0.0.0/8")]

    target = await resolve_public("http://127.0.0.1:8080/a?b=1", allow=networks, lookup=look_up)

    assert (target.host, target.url.port, target.addresses) == ("127.0.0.1", 8080, ("127.0.0.1",))
    with pytest.raises(AddressRefused):
        await resolve_public("http://169.254.169.254/", allow=networks, lookup=look_up)


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "LOCALHOST"])
async def test_what_is_listed_is_permitted(entry: str) -> None:
    target = await resolve_public("http://localhost:81/", allow=["10.0.0.0/8", entry, "::1"])

    assert target.host == "localhost"


async def test_what_is_listed_permits_nothing_else() -> None:
    with pytest.raises(AddressRefused):
        await resolve_public("http://127.0.0.1/", allow=["10.0.0.0/8", "localhost", "127.0.0.2"])


async def test_a_host_without_an_address_is_not_known() -> None:
    with pytest.raises(HostUnknown):
        await resolve_public(f"http://{'a' * 64}.invalid/")


@pytest.mark.parametrize("url", ["ftp://example.org/", "http://user:hush@example.org/", ""])
def test_what_is_wrong_with_a_url_is_known_before_it_is_used(url: str) -> None:
    problem = url_problem(url)

    assert problem is not None
    assert "hush" not in problem
    assert url_problem("https://example.org/a?b=c") is None


async def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that returns a permitted address first, and another one after that."""
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

    target = await resolve_public(url, allow=["127.0.0.1"])
    async with (
        server,
        ClientSession(connector=target.connector(), timeout=ClientTimeout(total=5)) as session,
        session.get(url) as response,
    ):
        said = await response.text()

    assert said == "hello"
    with pytest.raises(AddressRefused, match=r"192\.0\.2\.1"):
        await resolve_public(url, allow=["127.0.0.1"])

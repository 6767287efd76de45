"""Which addresses agents may reach: public ones, and those that the operator permits.

A name is resolved once, every address it has is checked, and the connection goes to one of those:
a name that leads elsewhere when it is asked again (DNS rebinding) gains nothing.
"""

import asyncio
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL  # aiohttp's own: what is checked is what it connects to

from app.errors import AddressRefused, ConnectionFailed

SCHEMES = ("http", "https")
# Addresses of IPv4 in the clothes of IPv6: NAT64's well-known prefix.
_NAT64 = ip_network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a URL leads, as it was checked.

    Attributes:
        url: The URL.
        host: Its host, as it is written there.
        addresses: The addresses it has.
    """

    url: str
    host: str
    addresses: tuple[Address, ...]

    def connector(self) -> TCPConnector:
        """What connects to these addresses and to no other; made on the loop that uses it."""
        return TCPConnector(resolver=_Resolved(self.addresses), use_dns_cache=False)


async def check_address(url: str, *, allow: Collection[str] = ()) -> Destination:
    """Where a URL leads, if agents may go there.

    Args:
        url: An http or https URL without user and password.
        allow: What is permitted although it is not public: names of hosts, addresses, and
            networks such as ``10.0.0.0/8``.

    Returns:
        The destination, to connect to at once.

    Raises:
        AddressRefused: If it is no such URL, or any address of its host is not public.
        ConnectionFailed: If the name of its host cannot be resolved.
    """
    parsed = _parsed(url)
    host = parsed.host or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, parsed.port, type=socket.SOCK_STREAM
        )
    # UnicodeError: a label of more than 63 characters.
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed(
            f"the host {host!r} has no address: {error}", provider="http", reached=False
        ) from error
    addresses = tuple(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found))
    for address in addresses:
        if not _permitted(host, address, allow):
            raise AddressRefused(
                f"{host!r} is at {address}, which is not a public address: correct the URL, or "
                f"list {host!r} under allow_addresses in the workers' configuration"
            )
    return Destination(url=url, host=host, addresses=addresses)


def url_problem(url: object) -> str | None:
    """What is wrong with a URL before anybody looks where it leads, or None."""
    if not isinstance(url, str):
        return f"is {url!r}: give a text"
    try:
        _parsed(url)
    except AddressRefused as error:
        return str(error)
    return None


def _parsed(url: str) -> URL:
    try:
        parsed = URL(url)
        known = parsed.scheme in SCHEMES and bool(parsed.host) and parsed.port is not None
    except ValueError as error:
        raise AddressRefused(f"is no URL ({error}): write https://host/path") from error
    if not known:
        raise AddressRefused("is no http or https URL with a host: write https://host/path")
    # The URL itself is not repeated: there is a secret in it.
    if parsed.user is not None or parsed.password is not None:
        raise AddressRefused("has a user or a password in it: give credentials as a header")
    return parsed


def _permitted(host: str, address: Address, allow: Collection[str]) -> bool:
    inner = _unwrapped(address)
    if inner.is_global and not inner.is_multicast:
        return True
    return any(_allows(entry, host, inner) for entry in allow)


def _allows(entry: str, host: str, address: Address) -> bool:
    if entry.lower() == host.lower():
        return True
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


class _Resolved(AbstractResolver):
    """Knows one host's addresses."""

    def __init__(self, addresses: Collection[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=_family(address),
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
            if family in (socket.AF_UNSPEC, _family(address))
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6

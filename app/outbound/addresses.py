"""Guards requests whose URL comes from outside: such requests never connect to a private address.

A host's name is looked up once, all its addresses are checked, and the connection goes to one of
these addresses. Therefore an attacker gains nothing if the name gets another address a moment later
(DNS rebinding). The library that connects also parses the URL, so that the check and the connection
mean the same host. A redirect leads to a new URL, which has to be checked again.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.domain.suggestions import shortened
from app.errors import AddressRefused, HostUnknown

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
#: A function that returns the addresses of a host's name, as strings.
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_URL_CHARS = 8192
# The list has the networks that some versions of Python's is_global do not reject, and the networks
# whose addresses embed an IPv4 address. The first entry is the address at which Azure serves the
# metadata of its machines.
NEVER_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
    )
)
_UNSEEN = re.compile(r"[\x00-\x20\x7f]")
NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A checked URL, and the addresses to which a request may connect.

    Attributes:
        url: The parsed URL.
        host: The host of the URL.
        addresses: Checked addresses of the host. Connect to one of these addresses, without a new
            lookup.
    """

    url: URL
    host: str
    addresses: tuple[str, ...]

    def connector(self) -> TCPConnector:
        """Make a connector for only this host and these addresses; call this method on the loop."""
        return TCPConnector(resolver=_PinnedResolver(self), use_dns_cache=False, force_close=True)


async def look_up(host: str, port: int) -> Sequence[str]:
    """Look up the addresses of a host with the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def url_problem(url: object) -> str | None:
    """Return a problem that can be found in a URL before any lookup, or None."""
    if not isinstance(url, str):
        return f"is {url!r}: give a string"
    try:
        _parse(url)
    except AddressRefused as error:
        return str(error)
    return None


async def resolve_public(
    url: str, *, allow: Collection[str | Network] = (), lookup: Lookup = look_up
) -> Target:
    """Resolve a URL if all addresses of its host are public or allowed.

    Args:
        url: An http or https URL from any source.
        allow: Targets that are not public, but that may be reached: networks, and strings that name
            hosts, addresses or networks.
        lookup: Function that looks up a host's name.

    Returns:
        The parsed URL, and its checked addresses.

    Raises:
        AddressRefused: If the URL is not valid, or if one of its addresses is neither public nor
            allowed.
        HostUnknown: If the host has no address.
    """
    parsed = _parse(url)
    host = str(parsed.raw_host)
    try:
        addresses = tuple(dict.fromkeys(await lookup(host, parsed.port or 0)))
    except (OSError, UnicodeError) as error:
        raise HostUnknown(f"host {shortened(host)} is not known: {error}") from error
    if not addresses:
        raise HostUnknown(f"host {shortened(host)} has no address")
    for address in addresses:
        if not _may_be_reached(host, address, allow):
            raise AddressRefused(
                f"host {shortened(host)} has the address {address}, which is not public and which "
                "the workers' configuration does not allow"
            )
    return Target(url=parsed, host=host, addresses=addresses)


def is_public(address: Address) -> bool:
    """Return whether an address and all addresses inside it are on the public internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.is_site_local:
            return False
    if any(address in network for network in NEVER_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class _PinnedResolver(AbstractResolver):
    """Returns the checked addresses to aiohttp, without a lookup.

    Args:
        target: The target of the connection.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  aiohttp's interface
    ) -> list[ResolveResult]:
        """Return the addresses of the target; raise OSError for any other host."""
        if host != self._target.host:
            raise OSError(f"{host!r} is not the host that was checked")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._target.addresses
        ]

    async def close(self) -> None:
        """Do nothing, because the resolver holds no connection."""


def _parse(url: str) -> URL:
    """Parse a URL; error messages do not show the URL, because a URL may contain a secret."""
    if len(url) > MAX_URL_CHARS:
        raise AddressRefused(f"has {len(url):,} characters, the limit is {MAX_URL_CHARS:,}")
    if _UNSEEN.search(url):
        raise AddressRefused("is not a URL: encode spaces and control characters")
    try:
        parsed = URL(url)
        has_port = parsed.port is not None
    except ValueError as error:
        raise AddressRefused(f"is not a URL ({error}): write https://host/path") from error
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or not has_port:
        raise AddressRefused("is not an http or https URL with a host: write https://host/path")
    if parsed.user is not None or parsed.password is not None:
        raise AddressRefused("has a user or a password in it: give credentials as a header")
    if "%" in parsed.raw_host:
        raise AddressRefused(f"has a zone in its host {shortened(parsed.raw_host)}: leave it out")
    return parsed


def _may_be_reached(host: str, text: str, allow: Collection[str | Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    plain = address if isinstance(address, IPv4Address) else address.ipv4_mapped or address
    return is_public(plain) or any(_allows(entry, host, plain) for entry in allow)


def _allows(entry: str | Network, host: str, address: Address) -> bool:
    if isinstance(entry, str):
        if entry.lower() == host.lower():
            return True
        try:
            entry = ip_network(entry, strict=False)
        except ValueError:
            return False
    return address in entry

"""The grammar of the URLs of services: the parts of a URL, and its passwords.

No message of this module repeats a part of a URL, because each part could belong to a password that
is not encoded. A message names a parameter only if the name is known.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote, unquote

from app.domain.suggestions import did_you_mean

PORTS = range(1, 65_536)
#: Parameters of a query whose values are passwords.
PASSWORDS = ("password", "sslpassword", "oauth_client_secret")
RESERVED = (
    "has a character that means something else in a URL: in the user, the password and the name "
    "of the database write % as %25, @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and a space "
    "as %20"
)
NOT_TEXT = "has bytes that are not UTF-8 text"
AMBIGUOUS = (
    "has something after the password that could belong to the password: write & in the password "
    "as %26, and write the password as the last parameter"
)

# The parts of RFC 3986. An "@" ends the user and the password, so every other "@" is an error: it
# is probably a part of the password, and the text before it would be taken for a host.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<account>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)"
    r"(?P<path>/[^@?#]*)?(?:\?(?P<query>[^@#]*))?"
)
_NOT_ENCODED = re.compile(r"[\s\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})|%00")
_HOST = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[0-9]*))?")
# The resolvers of the libraries differ in names with other characters.
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a URL; account, hosts and path are still encoded.

    Attributes:
        query: Names and decoded values, in the order of the URL.
    """

    scheme: str
    account: str
    hosts: str
    path: str
    query: tuple[tuple[str, str], ...]

    def user_and_password(self) -> tuple[str, str]:
        """Return user and password, decoded; each is empty if it is missing."""
        user, _, password = self.account.partition(":")
        return decoded(user), decoded(password)

    def unknown(self, name: str, known: Collection[str], foreign: Collection[str]) -> str:
        """Describe a parameter that is not known; show its name only if a library has this name.

        Args:
            name: The parameter, which could be a part of a password.
            known: The parameters that are possible.
            foreign: Other parameters that some library has.
        """
        if name in foreign:
            return f"has the parameter {name!r}"
        place = next(at for at, (each, _) in enumerate(self.query, 1) if each == name)
        return (
            f"has an unknown parameter at place {place} after the question mark"
            f"{did_you_mean(name, known)}"
        )


def split_url(
    text: str, *, schemes: tuple[str, ...], form: str, closed: Collection[str], repeated: str = ""
) -> Parts:
    """Split a URL into its parts.

    Args:
        text: The URL.
        schemes: The possible schemes.
        form: An example of a right URL.
        closed: Parameters whose values are numbers or fixed words. Only these parameters may follow
            a password, because a password that is not encoded may contain everything else.
        repeated: A parameter that may occur several times.

    Raises:
        ValueError: If this is no such URL.
    """
    scheme = text.partition("://")[0].lower()
    if "://" not in text or scheme not in schemes:
        known = " or ".join(f"{each}://" for each in schemes)
        raise ValueError(f"must begin with {known}: write {form}")
    match = _URL.fullmatch(text)
    if match is None or _NOT_ENCODED.search(text):
        raise ValueError(RESERVED)
    return Parts(
        scheme=scheme,
        account=match["account"] or "",
        hosts=match["hosts"],
        path=match["path"] or "",
        query=_query(match["query"] or "", form, closed, repeated),
    )


def _query(
    text: str, form: str, closed: Collection[str], repeated: str
) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    secret = False
    for part in filter(None, text.split("&")):
        name, equals, value = part.partition("=")
        if secret and name not in closed:
            raise ValueError(AMBIGUOUS)
        if not (equals and _NAME.fullmatch(name)):
            raise ValueError(f"needs name=value after the question mark: write {form}")
        if name != repeated and any(name == other for other, _ in found):
            raise ValueError("has a parameter twice after the question mark")
        secret = secret or name in PASSWORDS
        found.append((name, decoded(value)))
    return tuple(found)


def decoded(text: str) -> str:
    """Return a part of a URL without its encoding.

    Raises:
        ValueError: If the part has bytes that are not UTF-8.
    """
    try:
        found = unquote(text, errors="strict")
    except UnicodeDecodeError:
        found = None
    if found is None or not is_text(found):
        raise ValueError(NOT_TEXT)
    return found


def is_text(value: str) -> bool:
    """Return whether a string can be sent as UTF-8 and has no zero byte.

    A byte of the environment that is not UTF-8 is a lone surrogate in Python.
    """
    return "\x00" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def read_host(text: str, form: str) -> tuple[str, str]:
    """Return host and port as strings; the host of a socket's folder begins with a slash.

    Raises:
        ValueError: If no library could connect to the host. The message does not show the host,
            because without a host before it, it may be a user and a password.
    """
    match = _HOST.fullmatch(text)
    port = (match["port"] or "") if match else ""
    if match is None or (port and not is_port(port)):
        raise ValueError(f"has a wrong host or port: write {form}")
    host = decoded(match["host"].strip("[]"))
    check_host(host, form)
    if match["host"].startswith("[") != _is_ipv6(host):
        raise ValueError(f"has a wrong host or port: write {form}")
    return host, port


def check_host(host: str, form: str) -> None:
    """Refuse a host that is neither a name, nor an address, nor a folder or name of a socket.

    Raises:
        ValueError: If this is no such host.
    """
    if host.startswith(("/", "@")):
        if host.isprintable():
            return
    elif _HOST_NAME.fullmatch(host) or _is_ipv6(host):
        return
    raise ValueError(f"has a wrong host or port: write {form}")


def _is_ipv6(host: str) -> bool:
    address_, percent, zone = host.partition("%")
    try:
        IPv6Address(address_)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(zone) is not None


def is_port(text: str) -> bool:
    """Return whether a string is the number of a port, in ASCII digits."""
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) in PORTS


def address(host: str, port: int) -> str:
    """Return host and port in one word."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def with_password(text: str, password: str) -> str:
    """Return a URL with this password, which is not encoded; the URL's own takes precedence."""
    if secrets_of(text):
        return text
    scheme, _, rest = text.partition("://")
    authority = re.match(r"[^/?]*", rest)
    account, at, _ = (authority[0] if authority else "").rpartition("@")
    rest = rest[len(account) + len(at) :]
    return f"{scheme}://{account.removesuffix(':')}:{quote(password, safe='')}@{rest}"


def secrets_of(text: str) -> set[str]:
    """Return the passwords in a URL, as they are written and as they are sent.

    A URL that cannot be read has no passwords here, because it is refused before it is used.
    """
    match = _URL.fullmatch(text)
    if match is None:
        return set()
    written = [(match["account"] or "").partition(":")[2]]
    for part in (match["query"] or "").split("&"):
        name, _, value = part.partition("=")
        written += [value] if name in PASSWORDS else []
    return {form for value in written if value for form in (value, unquote(value))}

"""The URLs of Postgres and Redis: one reading of each, for every process and every library.

libpq, SQLAlchemy, redis-py and Celery each read a part of the forms, and sometimes read the same
URL in different ways. Therefore no library gets the URL: each library gets the parts that this
module has read. No message repeats a part of a URL that could belong to a password.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote, unquote

from app.domain.suggestions import listed

POSTGRES_FORM = "postgresql://user:password@host:5432/name"
REDIS_FORM = "redis://user:password@host:6379/0"
SOCKET_FORM = "unix:///path/to/socket?db=0"
POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket")
#: Parameters of libpq whose values are numbers; libpq itself would refuse them only later.
NUMBERS = re.compile(r"connect_timeout|keepalives\w*|tcp_user_timeout")
#: Servers that a session may want; AgentChord writes in every session.
WRITABLE = ("any", "primary", "read-write")
#: Names of the verification of a server's certificate, as redis-py and as Celery spell them.
CERTIFICATES = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}
SOCKET_OPTIONS = ("db", "virtual_host", "username", "password")
TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
)
POSTGRES_PORT, REDIS_PORT = 5432, 6379
PORTS = range(1, 65_536)

# The parts of RFC 3986. An "@" ends the user and the password, so every other "@" is an error: it
# is probably a part of the password, and the text before it would be taken for a host.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<account>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)"
    r"(?P<path>/[^@?#]*)?(?:\?(?P<query>[^@#]*))?"
)
_NOT_ENCODED = re.compile(r"[\s\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})|%00")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:]*)(?::(?P<port>[0-9]*))?")
_NAME = re.compile(r"\w+")
RESERVED = (
    "has a character that means something else in a URL: in the user, the password and the name "
    "of the database write % as %25, @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and a space "
    "as %20"
)


@dataclass(frozen=True, kw_only=True)
class PostgresUrl:
    """A URL of Postgres.

    Attributes:
        parameters: Every part of the URL as a connection parameter of libpq.
    """

    parameters: Mapping[str, str] = field(repr=False)

    @property
    def place(self) -> str:
        """The hosts with their ports, or the folder of the socket; without secrets."""
        hosts = self.parameters.get("host", "localhost").split(",")
        ports = self.parameters.get("port", "").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        return ",".join(
            host if host.startswith("/") else address(host, int(port or POSTGRES_PORT))
            for host, port in zip(hosts, ports, strict=True)
        )

    @property
    def database(self) -> str:
        """The name of the database; by default, the name is the name of the user."""
        return self.parameters.get("dbname") or self.parameters.get("user") or ""


@dataclass(frozen=True, kw_only=True)
class RedisUrl:
    """A URL of Redis.

    Attributes:
        host: Host, or None for a socket.
        port: Port of the host.
        path: Path of the socket, or None for a host.
        username: Name of the user, or None.
        password: Password, or None.
        db: Number of the database.
        tls: Options of TLS in the spelling of redis-py; None means a connection without TLS.
    """

    host: str | None = None
    port: int = REDIS_PORT
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: Mapping[str, str] | None = None

    @property
    def place(self) -> str:
        """Host and port, or the path of the socket; without secrets."""
        return self.path or address(self.host or "", self.port)


def address(host: str, port: int) -> str:
    """Return host and port in one word."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_postgres_url(text: str) -> PostgresUrl:
    """Read a URL in a form of libpq or of SQLAlchemy, also with several hosts.

    Raises:
        ValueError: If libpq would not accept the URL, or would read it in another way.
    """
    parts = _split(text, POSTGRES_SCHEMES, POSTGRES_FORM)
    user, _, password = (unquote(part) for part in parts.account.partition(":"))
    found = {
        "user": user,
        "password": password,
        "dbname": unquote(parts.path.removeprefix("/")),
        **_hosts(parts.hosts.split(",")),
        **dict(parts.query),  # as in libpq, the query takes precedence
    }
    named = [value for name, value in parts.query if name == "host"]
    if len(named) > 1 or any(value.count(":") == 1 for value in named):
        # SQLAlchemy writes each of several hosts with its port: ?host=h1:5432&host=h2:5433
        found |= _hosts(named)
    if found.get("ssl") == "true":  # JDBC's spelling, which libpq takes in a URL, too
        del found["ssl"]
        found["sslmode"] = "require"
    found = {name: value for name, value in found.items() if value}
    _check_libpq(found, parts)
    return PostgresUrl(parameters=found)


def _check_libpq(found: Mapping[str, str], parts: "_Parts") -> None:
    """Refuse parameters that libpq does not know or that cannot serve AgentChord."""
    # The import is late, because it takes longer than all other imports of the settings.
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name, value in found.items():
        if name not in known:
            raise ValueError(f"has the parameter {parts.shown(name)}, which libpq does not know")
        if NUMBERS.fullmatch(name) and not re.fullmatch(r"-?[0-9]+", value):
            raise ValueError(f"needs a whole number as {name}")
    hosts, ports = (found.get(name, "").split(",") for name in ("host", "port"))
    if len(ports) not in (1, len(hosts)):
        raise ValueError("needs either one port or as many ports as hosts")
    if not all(port == "" or (port.isdecimal() and int(port) in PORTS) for port in ports):
        raise ValueError(f"has a wrong port: write {POSTGRES_FORM}")
    if found.get("target_session_attrs", "any") not in WRITABLE:
        raise ValueError(
            f"needs one of {listed(WRITABLE)} as target_session_attrs, because AgentChord writes"
        )


def read_redis_url(text: str) -> RedisUrl:
    """Read a URL in a form of redis-py or of Celery.

    Raises:
        ValueError: If the URL is wrong, or has an option that one of the libraries cannot use.
    """
    parts = _split(text, REDIS_SCHEMES, f"{REDIS_FORM}, rediss://... or {SOCKET_FORM}")
    has_socket = parts.scheme in ("unix", "redis+socket")
    has_tls = parts.scheme == "rediss"
    known = [*(SOCKET_OPTIONS if has_socket else ("db",)), *(TLS_OPTIONS if has_tls else ())]
    options = dict(parts.query)
    for name in options:
        if name not in known:
            raise ValueError(
                f"has the option {parts.shown(name)}, which not every process could use: only "
                f"{listed(known)} may follow the question mark"
            )
    path = unquote(parts.path)
    db = options.get("db", options.get("virtual_host", "" if has_socket else path)).strip("/")
    if db and not db.isdecimal():
        form = SOCKET_FORM if has_socket else REDIS_FORM
        raise ValueError(f"needs a number as its database: write {form}")
    user, _, password = (unquote(part) for part in parts.account.partition(":"))
    server = partial(
        RedisUrl,
        username=user or options.get("username") or None,
        password=password or options.get("password") or None,
        db=int(db or 0),
        tls=_tls(options) if has_tls else None,
    )
    if has_socket:
        if parts.hosts or not path.strip("/"):
            raise ValueError(f"needs the absolute path of a socket: write {SOCKET_FORM}")
        return server(path=path)
    host, port = _host(parts.hosts, REDIS_FORM)
    return server(host=host or "localhost", port=int(port or REDIS_PORT))


def _tls(options: Mapping[str, str]) -> dict[str, str]:
    tls = {name: value for name, value in options.items() if name in TLS_OPTIONS}
    # redis-py checks certificates by default, but Celery needs the option.
    reqs = tls.get("ssl_cert_reqs", "required")
    tls["ssl_cert_reqs"] = CERTIFICATES.get(reqs, reqs)
    if tls["ssl_cert_reqs"] not in CERTIFICATES.values():
        raise ValueError(f"needs one of {listed(CERTIFICATES.values())} as ssl_cert_reqs")
    if tls.get("ssl_check_hostname", "true").lower() not in ("true", "false"):
        raise ValueError("needs true or false as ssl_check_hostname")
    return tls


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
        written += [value] if name in ("password", "sslpassword") else []
    return {form for value in written if value for form in (value, unquote(value))}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The parts of a URL; account, hosts and path are still encoded."""

    scheme: str
    account: str
    hosts: str
    path: str
    query: tuple[tuple[str, str], ...]

    def shown(self, name: str) -> str:
        """Return the name of an option, if it cannot be a part of a wrongly written password."""
        return repr(name) if self.account or ":" not in self.hosts else "whose name is not shown"


def _split(text: str, schemes: tuple[str, ...], form: str) -> _Parts:
    scheme = text.partition("://")[0].lower()
    if "://" not in text or scheme not in schemes:
        known = " or ".join(f"{each}://" for each in schemes)
        raise ValueError(f"must begin with {known}: write {form}")
    match = _URL.fullmatch(text)
    if match is None or _NOT_ENCODED.search(text):
        raise ValueError(RESERVED)
    query = []
    for part in (match["query"] or "").split("&"):
        name, equals, value = part.partition("=")
        if part and not (equals and _NAME.fullmatch(name)):
            raise ValueError(f"needs name=value after the question mark: write {form}")
        query += [(name, unquote(value))] if part else []
    return _Parts(
        scheme=scheme,
        account=match["account"] or "",
        hosts=match["hosts"],
        path=match["path"] or "",
        query=tuple(query),
    )


def _hosts(written: Sequence[str]) -> dict[str, str]:
    """Return hosts and ports as libpq takes them, in two lists."""
    hosts, ports = zip(*(_host(text, POSTGRES_FORM) for text in written), strict=True)
    return {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else ""}


def _host(text: str, form: str) -> tuple[str, str]:
    """Return host and port; the host of a socket's folder begins with a slash."""
    match = _HOST.fullmatch(text)
    port = (match["port"] or "") if match else ""
    if match is None or (port and int(port) not in PORTS):
        # The text is not shown: without a host before it, it may be a user and a password.
        raise ValueError(f"has a wrong host or port: write {form}")
    return unquote(match["host"].strip("[]")), port

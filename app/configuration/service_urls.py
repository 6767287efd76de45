"""The URLs of Postgres and Redis: one reading of each, for every process and every library.

libpq, SQLAlchemy, redis-py and Celery each read a part of the forms, and sometimes read the same
URL in different ways. Therefore no library gets the URL: each library gets the parts that this
module has read. No message repeats a part of a URL that could belong to a password.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from app.configuration import libpq
from app.configuration.url_parts import (
    Parts,
    address,
    check_host,
    decoded,
    is_port,
    read_host,
    split_url,
)
from app.domain.suggestions import listed

POSTGRES_FORM = "postgresql://user:password@host:5432/name"
REDIS_FORM = "redis://user:password@host:6379/0"
SOCKET_FORM = "unix:///path/to/socket?db=0"
POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket")
#: Parameters of libpq whose values are numbers; libpq itself would refuse them only later.
NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
)
#: Parameters of libpq whose values are fixed words; libpq checks them.
FIXED_WORDS = ("channel_binding", "gssencmode", "load_balance_hosts", "ssl", "sslmode")
MAX_NUMBER = 2**31 - 1
#: Servers that a session may want; AgentChord writes in every session.
WRITABLE = ("any", "primary", "read-write")
#: Spellings of the one encoding with which AgentChord reads and writes text.
UTF8 = ("utf8", "utf-8", "unicode", "auto")
#: Settings of a session that would change what AgentChord's statements mean or do.
UNUSABLE_SETTINGS = (
    "array_nulls",
    "default_transaction_deferrable",
    "default_transaction_read_only",
    "row_security",
    "session_authorization",
    "session_replication_role",
    "standard_conforming_strings",
    "transaction_read_only",
    "transform_null_equals",
)
#: Parameters of other libraries, whose names may be shown.
OTHER_POSTGRES_PARAMETERS = (
    *("DateStyle", "TimeZone", "application", "async_fallback", "autocommit", "binary_parameters"),
    *("charset", "command_timeout", "connection_limit", "currentSchema", "database", "datestyle"),
    *("encoding", "isolation_level", "loginTimeout", "max_size", "min_size", "pgbouncer"),
    *("pool_size", "pool_timeout", "prepare_threshold", "prepared_statement_cache_size", "schema"),
    *(
        "search_path",
        "server_settings",
        "socketTimeout",
        "ssl",
        "sslaccept",
        "statement_cache_size",
    ),
    *("statement_timeout", "timeout", "timezone", "unix_sock", "unix_socket"),
)
#: Names of the verification of a server's certificate, as redis-py and as Celery spell them.
CERTIFICATES = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}
#: Truth values, as redis-py and as Celery spell them.
TRUTHS = dict.fromkeys(("true", "yes", "y", "t", "1"), "true")
TRUTHS |= dict.fromkeys(("false", "no", "n", "f", "0"), "false")
DATABASES = ("db", "virtual_host")
ACCOUNT = ("username", "password")
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_OPTIONS = (*TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
#: Options of redis-py and Celery that not every process could use, and whose names may be shown.
OTHER_REDIS_OPTIONS = (
    *("cache_prefix", "charset", "client_name", "credential_provider", "decode_responses"),
    *("encoding", "encoding_errors", "errors", "global_keyprefix", "health_check_interval"),
    *("max_connections", "name", "namespace", "new_join", "password", "path", "pool_size"),
    *("protocol", "retry_on_error", "retry_on_timeout", "scheme", "single_connection_client"),
    *("skip_full_coverage_check", "socket_connect_timeout", "socket_keepalive", "socket_timeout"),
    *("socket_read_size", "ssl", "ssl_ca_data", "ssl_ca_path", "ssl_ciphers", "ssl_keyfile"),
    *("ssl_min_version", "ssl_password", "ssl_validate_ocsp", "timeout", "unix_socket_path"),
    *("user", "username", "visibility_timeout", *DATABASES, *TLS_OPTIONS),
)
POSTGRES_PORT, REDIS_PORT = 5432, 6379
# A word of "options": a backslash keeps a space in the word.
_WORDS = re.compile(r"(?:\\.|[^\s\\])+")
# The proxies of some hosts of Postgres read the first two names; Postgres refuses these words.
_SETTING = re.compile(
    r"(?:(?:endpoint|project)|(?:-c|--)(?P<name>[A-Za-z_][A-Za-z0-9_.-]*))=.*", re.DOTALL
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
        """The hosts with their ports, or the folder of the socket; without secrets.

        libpq takes a missing part from the environment, such as PGHOST and PGPORT.
        """
        host = self.parameters.get("host") or libpq.default("host")
        if not host and (service := self.parameters.get("service")):
            return f"the service {service!r}"
        hosts = (host or "localhost").split(",")
        ports = (self.parameters.get("port") or libpq.default("port")).split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        return ",".join(
            host if host.startswith("/") else address(host, int(port or POSTGRES_PORT))
            for host, port in zip(hosts, ports, strict=True)
        )

    @property
    def database(self) -> str:
        """The name of the database; by default, the name is the name of the user."""
        names = [self.parameters.get(name) or libpq.default(name) for name in ("dbname", "user")]
        return names[0] or names[1]


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
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: Mapping[str, str] | None = None

    @property
    def place(self) -> str:
        """Host and port, or the path of the socket; without secrets."""
        return self.path or address(self.host or "", self.port)


def read_postgres_url(text: str) -> PostgresUrl:
    """Read a URL in a form of libpq or of SQLAlchemy, also with several hosts.

    Raises:
        ValueError: If libpq would not accept the URL with the PG* variables of the environment, or
            would read the URL in another way, or if AgentChord cannot work with a parameter.
    """
    parts = split_url(
        text,
        schemes=POSTGRES_SCHEMES,
        form=POSTGRES_FORM,
        closed=(*NUMBERS, *FIXED_WORDS, "target_session_attrs"),
        repeated="host",
    )
    user, password = parts.user_and_password()
    found = {
        "user": user,
        "password": password,
        "dbname": decoded(parts.path.removeprefix("/")),
        **_hosts(parts.hosts.split(",")),
    }
    found = {name: value for name, value in found.items() if value}
    found |= dict(parts.query)  # as in libpq, the query takes precedence
    named = [value for name, value in parts.query if name == "host"]
    if len(named) > 1 or any(":" in value and not _is_whole(value) for value in named):
        # SQLAlchemy writes each of several hosts with its port: ?host=h1:5432&host=h2:5433
        found |= _hosts(named)
    if found.get("ssl") == "true":  # JDBC's spelling, which libpq takes in a URL, too
        del found["ssl"]
        found["sslmode"] = "require"
    structure = ("user", "password", "dbname", "host", "port", "passfile")
    found = {name: value for name, value in found.items() if value or name not in structure}
    _check_known(found, parts)
    _check_places(found)
    _check_usable(found)
    return PostgresUrl(parameters=found)


def _is_whole(host: str) -> bool:
    """Return whether a text with a colon is one host: a folder, or an address of IPv6."""
    return host.startswith(("/", "@")) or host.count(":") > 1


def _check_known(found: Mapping[str, str], parts: Parts) -> None:
    known = libpq.variables()
    for name, value in found.items():
        if name not in known:
            what = parts.unknown(name, known, OTHER_POSTGRES_PARAMETERS)
            raise ValueError(f"{what}; libpq does not know this parameter")
        if name in NUMBERS and not _is_number(value):
            raise ValueError(f"needs a whole number as {name}")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,10}", text) is not None and abs(int(text)) <= MAX_NUMBER


def _check_places(found: Mapping[str, str]) -> None:
    """Refuse hosts and ports that do not fit, which libpq would notice only at the connection."""
    hosts, ports, addresses = (
        found.get(name, "").split(",") for name in ("host", "port", "hostaddr")
    )
    for host in (*hosts, *addresses):
        check_host(host, POSTGRES_FORM)
    count = max(len(hosts), len(addresses))
    if len(ports) not in (1, count):
        raise ValueError("needs either one port or as many ports as hosts")
    if addresses != [""] and len(hosts) != len(addresses) and hosts != [""]:
        raise ValueError("needs as many values of hostaddr as hosts")
    if not all(port == "" or is_port(port) for port in ports):
        raise ValueError(f"has a wrong port: write {POSTGRES_FORM}")


def _check_usable(found: Mapping[str, str]) -> None:
    """Refuse parameters with which AgentChord cannot work, and values that libpq refuses."""
    if found.get("target_session_attrs", "any") not in WRITABLE:
        raise ValueError(
            f"needs one of {listed(WRITABLE)} as target_session_attrs, because AgentChord writes"
        )
    if "replication" in found:
        raise ValueError("has the parameter replication: AgentChord needs ordinary sessions")
    if found.get("client_encoding", "utf8").lower() not in UTF8:
        raise ValueError("needs UTF8 as client_encoding: remove the parameter")
    given = "options" in found
    options = found["options"] if given else libpq.default("options")
    if (problem := _problem_of_options(options)) is not None:
        raise ValueError(f"{problem}{'' if given else ' in the environment variable PGOPTIONS'}")
    if (reason := libpq.refusal(found)) is not None:
        raise ValueError(f"is refused by libpq: {reason}")


def _problem_of_options(text: str) -> str | None:
    words = _WORDS.findall(text)
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word += words.pop(0)
        match = _SETTING.fullmatch(word)
        if match is None:
            return "may have only words of the form -c name=value as options"
        name = (match["name"] or "").lower().replace("-", "_")
        if name in UNUSABLE_SETTINGS:
            return f"sets {name} as an option, with which AgentChord cannot work"
    return None


def _hosts(written: Sequence[str]) -> dict[str, str]:
    """Return hosts and ports as libpq takes them, in two lists."""
    hosts, ports = zip(*(read_host(text, POSTGRES_FORM) for text in written), strict=True)
    return {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else ""}


def read_redis_url(text: str) -> RedisUrl:
    """Read a URL in a form of redis-py or of Celery.

    Raises:
        ValueError: If the URL is wrong, or has an option that one of the libraries cannot use.
    """
    form = f"{REDIS_FORM}, rediss://... or {SOCKET_FORM}"
    closed = (*DATABASES, "ssl_cert_reqs", "ssl_check_hostname")
    parts = split_url(text, schemes=REDIS_SCHEMES, form=form, closed=closed)
    has_socket = parts.scheme in ("unix", "redis+socket")
    has_tls = parts.scheme == "rediss"
    options = dict(parts.query)
    databases = DATABASES if has_socket else ("db",)
    _check_options(options, parts, (*databases, *ACCOUNT, *(TLS_OPTIONS if has_tls else ())))
    path = decoded(parts.path)
    user, password = parts.user_and_password()
    if user and ":" not in parts.account and "password" not in options:
        # Celery shows the names of users. Such a name may be a password without its colon.
        raise ValueError(
            "has a user without a password: write redis://:password@host for a password alone, "
            "redis://user:@host for a user that needs no password, or set AGENTCHORD_REDIS_PASSWORD"
        )
    server = partial(
        RedisUrl,
        username=user or options.get("username") or None,
        password=password or options.get("password") or None,
        db=_database(options, "" if has_socket else path, SOCKET_FORM if has_socket else form),
        tls=_tls(options) if has_tls else None,
    )
    if has_socket:
        if parts.hosts or not path.strip("/") or not path.isprintable():
            raise ValueError(f"needs the absolute path of a socket: write {SOCKET_FORM}")
        return server(path=path)
    if "," in parts.hosts:
        raise ValueError(f"has several hosts, but AgentChord uses one Redis: write {REDIS_FORM}")
    host, port = read_host(parts.hosts, REDIS_FORM)
    if host.startswith(("/", "@")):
        raise ValueError(f"has a wrong host or port: write {REDIS_FORM} or {SOCKET_FORM}")
    return server(host=host or "localhost", port=int(port or REDIS_PORT))


def _check_options(options: Mapping[str, str], parts: Parts, known: Sequence[str]) -> None:
    for name in options:
        if name not in known:
            what = parts.unknown(name, known, OTHER_REDIS_OPTIONS)
            raise ValueError(
                f"{what}, which not every process could use: only {listed(known)} may follow the "
                "question mark"
            )
    if all(name in options for name in DATABASES):
        raise ValueError(f"needs either {' or '.join(DATABASES)}, but has both")


def _database(options: Mapping[str, str], path: str, form: str) -> int:
    given = options.get("db", options.get("virtual_host", path))
    text = given.removeprefix("/").removesuffix("/")
    if not re.fullmatch(r"[0-9]*", text):
        raise ValueError(f"needs a number as its database: write {form}")
    if text and not _is_number(text):
        raise ValueError("has the number of a database that no Redis has")
    return int(text or 0)


def _tls(options: Mapping[str, str]) -> dict[str, str]:
    tls = {name: value for name, value in options.items() if name in TLS_OPTIONS}
    # redis-py checks certificates by default, but Celery needs the option.
    reqs = tls.get("ssl_cert_reqs", "required")
    tls["ssl_cert_reqs"] = CERTIFICATES.get(reqs.upper(), reqs.lower())
    if tls["ssl_cert_reqs"] not in CERTIFICATES.values():
        raise ValueError(f"needs one of {listed(CERTIFICATES.values())} as ssl_cert_reqs")
    if (check := tls.get("ssl_check_hostname")) is not None:
        if check.lower() not in TRUTHS:
            raise ValueError("needs true or false as ssl_check_hostname")
        tls["ssl_check_hostname"] = TRUTHS[check.lower()]
    for name in TLS_FILES:
        if name in tls and not (Path(tls[name]).is_file() and os.access(tls[name], os.R_OK)):
            raise ValueError(f"names a file as {name} that cannot be read")
    return tls

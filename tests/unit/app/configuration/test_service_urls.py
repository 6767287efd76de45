"""Every form of a URL is read as its library reads it, or is refused without a secret."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from redis.connection import parse_url
from sqlalchemy.engine import make_url

from app.configuration.service_urls import read_postgres_url, read_redis_url
from app.configuration.url_parts import secrets_of, with_password

#: Stands at both ends of a password, so that no part of the password lacks it.
MARK = "Zq9"
RESERVED = "%:/?#[]@!$&'()*+,;= "
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
RAW = st.text(st.sampled_from(RESERVED + 'ab1.-_~é\\"<>{}|^`'), max_size=12)
POSTGRES = {
    "postgresql://db/chord": {"host": "db", "dbname": "chord"},
    "postgres://ada:pw@db:5433/chord": {
        "user": "ada",
        "password": "pw",
        "host": "db",
        "port": "5433",
        "dbname": "chord",
    },
    "postgresql+psycopg://ada@db/chord?sslmode=require&connect_timeout=3": {
        "user": "ada",
        "host": "db",
        "dbname": "chord",
        "sslmode": "require",
        "connect_timeout": "3",
    },
    "postgresql://db/chord?ssl=true": {"host": "db", "dbname": "chord", "sslmode": "require"},
    "postgresql:///chord?host=%2Frun%2Fpg&port=5433": {
        "dbname": "chord",
        "host": "/run/pg",
        "port": "5433",
    },
    "postgresql://%2Frun%2Fpg/chord": {"host": "/run/pg", "dbname": "chord"},
    "postgresql://[::1]:5433/chord": {"host": "::1", "port": "5433", "dbname": "chord"},
    "postgresql://h1:5432,h2:5433/chord?target_session_attrs=primary": {
        "host": "h1,h2",
        "port": "5432,5433",
        "dbname": "chord",
        "target_session_attrs": "primary",
    },
    "postgresql://h1,h2:5433/chord": {"host": "h1,h2", "port": ",5433", "dbname": "chord"},
    "postgresql:///chord?host=h1,h2&port=1,2": {"host": "h1,h2", "port": "1,2", "dbname": "chord"},
    "postgresql://db/chord?options=-c%20search_path%3Done&application_name=billing": {
        "host": "db",
        "dbname": "chord",
        "options": "-c search_path=one",
        "application_name": "billing",
    },
    "postgresql://db/?sslcert=&requirepeer=": {"host": "db", "sslcert": "", "requirepeer": ""},
}


@pytest.mark.parametrize("url", POSTGRES)
def test_libpq_and_this_package_read_the_same_parts(url: str) -> None:
    read = dict(read_postgres_url(url).parameters)

    assert read == POSTGRES[url]
    assert read == conninfo_to_dict(url.replace("+psycopg", ""))


@pytest.mark.parametrize(
    "query", ["host=h1:5432&host=h2:5433", "host=h1&host=h2:5433", "host=h1:5432"]
)
def test_several_hosts_may_be_written_as_sqlalchemy_writes_them(query: str) -> None:
    url = f"postgresql+psycopg://ada@/chord?{query}"
    _, expected = make_url(url).get_dialect()().create_connect_args(make_url(url))

    read = read_postgres_url(url).parameters

    assert read["host"] == expected["host"]
    assert read["port"] == str(expected["port"])


@given(user=TEXTS.filter(bool), password=TEXTS, name=TEXTS)
def test_encoded_parts_are_read_as_libpq_and_sqlalchemy_read_them(
    user: str, password: str, name: str
) -> None:
    account = ":".join(quote(part, safe="") for part in (user, password))
    url = f"postgresql://{account}@db:5433/{quote(name, safe='')}"

    read = read_postgres_url(url).parameters

    assert (read["user"], read.get("password", ""), read.get("dbname", "")) == (
        *(user, password),
        name,
    )
    assert read == {part: text for part, text in conninfo_to_dict(url).items() if text}
    assert make_url(url).password == password


def test_a_service_of_a_file_may_name_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "services.conf").write_text("[prod]\nhost=db\nport=5433\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))

    read = read_postgres_url("postgresql:///chord?service=prod")
    with pytest.raises(ValueError, match="definition of service not found"):
        read_postgres_url("postgresql:///chord?service=Zq9")

    assert read.parameters == {"dbname": "chord", "service": "prod"}
    assert read.place == "the service 'prod'"


def read_or_refusal(read: Callable[[str], Any], url: str) -> tuple[Any, str]:
    """Return what was read, and everything that may be said about it."""
    try:
        found = read(url)
    except ValueError as error:
        return None, str(error)
    return found, repr(found) + found.place


@pytest.mark.parametrize(
    ("read", "url"),
    [
        (read_postgres_url, "postgresql://ada:{}@db:5432/chord"),
        (read_postgres_url, "postgresql://ada:{}@h1,h2/chord?target_session_attrs=any"),
        (read_postgres_url, "postgresql:///chord?host=%2Frun&password={}"),
        (read_redis_url, "redis://:{}@cache:6379/0"),
        (read_redis_url, "rediss://ada:{}@cache/0"),
        (read_redis_url, "unix://:{}@/run/redis.sock?db=1"),
        (read_redis_url, "unix:///run/redis.sock?db=1&password={}"),
    ],
)
@given(middle=RAW)
@example(middle="#")
@example(middle="/")
@example(middle="@")
@example(middle="@h:1/x?")
@example(middle="?a=b")
@example(middle=":12?")
@example(middle="&")
@example(middle="&x=")
@example(middle="&host=")
@example(middle="&db=1&host=")
@example(middle="&sslmode=require&sslmode=")
@example(middle="&sslmode=")
@example(middle="&password=")
def test_a_password_that_is_not_encoded_is_read_as_it_is_or_refused_without_a_part_of_it(
    read: Callable[[str], object], url: str, middle: str
) -> None:
    password = f"{MARK}{middle}{MARK}"
    encoded = re.search(r"%[0-9A-Fa-f]{2}", middle)

    found, said = read_or_refusal(read, url.format(password))

    assert MARK not in said
    assert "\n" not in said
    if found is not None:
        sent = getattr(found, "parameters", vars(found)).get("password")
        assert encoded or sent == password


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:Zq9secret",
        "postgresql://ada:12?Zq9=x",
        "postgresql://ada:Zq9@db:Zq9/chord",
        "postgresql://ada@db/chord?Zq9",
        "postgresql://Zq9:99999/chord",
        "postgresql://db/chord#Zq9",
        "postgresql://db/chord?password=Zq9%00",
        "postgresql://db/cho rd?password=Zq9",
        "postgresql://[Zq9/chord",
        "postgresql:///chord?password=a&Zq9=b",
        "postgresql:///chord?password=a&b&host=Zq9",
        "postgresql:///chord?Zq9a=1&Zq9a=2",
        "postgresql://db/chord?sslmode=Zq9",
        'postgresql://db/chord?sslmode=a"b"Zq9',
        "postgresql://db/chord?connect_timeout=Zq9",
        "postgresql://db/chord?target_session_attrs=Zq9",
        "postgresql://db/chord?client_encoding=Zq9",
        "postgresql://db/chord?options=Zq9",
        "postgresql://ada:Zq9%ff@db/chord",
        "postgresql://ada:Zq9\udcff@db/chord",
        "postgresql://db:Zq9,h2:1/chord",
        "postgresql://Zq9\u0661/chord",
        "Zq9",
    ],
)
def test_a_wrong_url_of_postgres_is_told_without_a_part_of_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"write|needs|has|refused|may") as refusal:
        read_postgres_url(url)

    assert "Zq9" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://db/chord?prepare_threshold=0", "'prepare_threshold'; libpq"),
        ("postgresql://db/chord?target_session_attrs=standby", "because AgentChord writes"),
        ("postgresql://db/chord?connect_timeout=soon", "whole number as connect_timeout"),
        ("postgresql://h1,h2/chord?port=1,2,3", "as many ports as hosts"),
        ("postgresql://db/chord?port=x", "wrong port"),
        ("postgresql://db/chord?sslmod=require", "place 1 after the question mark; did you mean"),
        ("postgresql://db/chord?sslmode=bogus", "libpq: invalid sslmode value"),
        ("postgresql://db/chord?gssencmode=bogus", "libpq: invalid gssencmode value"),
        ("postgresql://db/chord?require_auth=bogus", "libpq: invalid require_auth value"),
        ("postgresql://db/chord?replication=database", "the parameter replication"),
        ("postgresql://db/chord?client_encoding=latin1", "UTF8 as client_encoding"),
        ("postgresql://db/chord?DateStyle=German", "the parameter 'DateStyle'"),
        ("postgresql://db/chord?hostaddr=10.0.0.1,10.0.0.2", "as many values of hostaddr"),
        ("postgresql://db/chord?options=-c%20Session_Replication-Role%3Dreplica", "sets session_"),
        (
            "postgresql://db/chord?options=--default_transaction_read_only%3Don",
            "sets default_transaction_read_only as an option",
        ),
        ("postgresql://db/chord?options=-e", "the form -c name=value"),
        ("postgresql://db/chord?connect_timeout=99999999999", "whole number as connect_timeout"),
        ("postgresql://db/chord?connect_timeout=\u0663", "whole number as connect_timeout"),
        ("postgresql://db:\u0665\u0664/chord", "a wrong host or port"),
        ("postgresql://ho%0Ast/chord", "a wrong host or port"),
        ("postgresql+asyncpg://db/chord", "must begin with"),
        ("mysql://db/chord", "must begin with"),
    ],
)
def test_a_url_of_postgres_that_cannot_work_is_refused_by_name(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_postgres_url(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://cache/zero", "needs a number as its database"),
        ("redis://cache/0?db=x", "needs a number as its database"),
        ("redis://cache/0?socket_timeout=5", "the parameter 'socket_timeout'"),
        ("redis://cache/0?ssl_cert_reqs=none", "the parameter 'ssl_cert_reqs'"),
        ("rediss://cache/0?ssl_cert_reqs=maybe", "'required', 'optional', 'none'"),
        ("rediss://cache/0?ssl_check_hostname=x", "true or false as ssl_check_hostname"),
        ("redis://cache:x/0", "a wrong host or port"),
        ("redis://h1:1,h2:2/0", "has several hosts"),
        ("redis://h1,h2/0", "has several hosts"),
        ("redis://cache/99999999999", "no Redis has"),
        ("redis://cache/\u0663", "needs a number as its database"),
        ("redis://cache/\uff13", "needs a number as its database"),
        ("redis://cache:\u0667\u0660/0", "a wrong host or port"),
        ("redis://ca%20che/0", "a wrong host or port"),
        ("redis://ca%0Ache/0", "a wrong host or port"),
        ("redis://ca\nche/0", "means something else"),
        ("redis://c\xe4che/0", "a wrong host or port"),
        ("redis://[cache]/0", "a wrong host or port"),
        ("redis://[::1%25a b]/0", "means something else"),
        ("redis://%2Frun%2Fredis.sock/0", "a wrong host or port"),
        ("redis://cache?db=1&db=2", "a parameter twice"),
        ("unix:///r.sock?db=1&virtual_host=2", "has both"),
        ("unix:///r%0A.sock", "the absolute path of a socket"),
        ("rediss://cache/0?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs that cannot be read"),
        ("rediss://pw@cache/0", "a user without a password"),
        ("unix://run/redis.sock", "the absolute path of a socket"),
        ("unix://", "the absolute path of a socket"),
        ("sentinel://cache:26379", "must begin with"),
        ("redis+sentinel://cache:26379", "must begin with"),
    ],
)
def test_a_url_of_redis_that_not_every_library_takes_is_refused_by_name(
    url: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://ada:pw@cache:7000/3",
        "redis://:p%40%2Fw@cache?db=4",
        "redis://cache?db=4&username=ada&password=pw",
        "redis://[fe80::1%25eth0]:7000/3",
        "redis://c%61che/3",
        "redis://cache/",
        "redis://cache/2?db=4",
        "rediss://cache/1",
        "unix:///run/redis.sock",
        "unix://ada:pw@/run/redis.sock?db=3",
        "unix:///run/my%20redis.sock?username=ada&password=p%23w",
    ],
)
def test_redis_py_and_this_package_read_the_same_parts(url: str) -> None:
    expected: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]

    read = read_redis_url(url)

    assert read.host == (expected.get("host") or (None if read.path else "localhost"))
    assert read.port == expected.get("port", 6379)
    assert read.path == expected.get("path")
    assert read.db == expected.get("db", 0)
    assert (read.username, read.password) == (expected.get("username"), expected.get("password"))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://user:secret@host/0", "host:6379"),
        ("rediss://:secret@host:7000/0", "host:7000"),
        ("redis://[::1]/0", "[::1]:6379"),
        ("unix://:secret@/tmp/redis.sock?db=3", "/tmp/redis.sock"),
        ("postgresql://ada:secret@h1:5433,h2/chord", "h1:5433,h2:5432"),
        ("postgresql:///chord?host=/run/pg&password=secret", "/run/pg"),
        ("postgresql:///chord", "localhost:5432"),
    ],
)
def test_messages_show_the_place_and_no_password(url: str, place: str) -> None:
    read = read_postgres_url if url.startswith("postgres") else read_redis_url

    assert read(url).place == place


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada@db:5432/chord?sslmode=require",
        "postgresql://ada:@db/chord",
        "postgresql:///chord?host=%2Frun",
        "redis://cache:6379/0",
        "redis://ada:@cache",
        "unix:///run/redis.sock?db=1",
    ],
)
@given(password=TEXTS.filter(bool))
def test_a_password_that_is_given_alone_is_sent_as_it_is(url: str, password: str) -> None:
    complete = with_password(url, password)

    if url.startswith("postgres"):
        plain = dict(read_postgres_url(url).parameters)
        assert read_postgres_url(complete).parameters == plain | {"password": password}
    else:
        assert read_redis_url(complete).password == password
        assert read_redis_url(complete).place == read_redis_url(url).place
    assert password in secrets_of(complete)


def test_the_password_in_a_url_takes_precedence() -> None:
    assert with_password("redis://:own@cache", "other") == "redis://:own@cache"


def test_both_spellings_of_a_password_are_secrets() -> None:
    assert secrets_of("postgresql://ada:p%23w@db/chord") == {"p%23w", "p#w"}
    assert secrets_of("unix:///run/redis.sock?password=pw") == {"pw"}
    assert secrets_of("redis://cache") == set()

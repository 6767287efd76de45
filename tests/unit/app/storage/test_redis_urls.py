from typing import Any
from urllib.parse import quote

import pytest
from celery.backends.redis import RedisBackend
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import url_to_parts
from redis import connection as sync_connection

from app.celery import app as celery
from app.configuration.service_urls import read_redis_url
from app.storage.redis import celery_redis_url, connection_parameters, tls_options

SECRETS = st.text(min_size=1, max_size=20).filter(lambda text: "\x00" not in text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:pw@host:6379/2", "redis://:pw@host:6379/2"),
        ("redis://host?db=3", "redis://host:6379/3"),
        ("redis://host/2?db=3", "redis://host:6379/3"),
        ("redis://[::1]:7000", "redis://[::1]:7000/0"),
        ("redis://[fe80::1%25eb0]:7000", "redis://[fe80::1%25eb0]:7000/0"),
        ("REDIS://host/1", "redis://host:6379/1"),
        ("redis://ada:p%2Fw@host", "redis://ada:p%2Fw@host:6379/0"),
        ("unix:///tmp/redis.sock?db=3", "redis+socket:///tmp/redis.sock?virtual_host=3"),
        ("unix:///tmp/redis.sock", "redis+socket:///tmp/redis.sock?virtual_host=0"),
        ("unix://:pw@/r.sock", "redis+socket://:pw@/r.sock?virtual_host=0"),
        ("unix:///r.sock?db=1&password=p%23", "redis+socket://:p%23@/r.sock?virtual_host=1"),
        ("redis+socket:///r.sock?virtual_host=4", "redis+socket:///r.sock?virtual_host=4"),
        ("rediss://host/0", "rediss://host:6379/0"),
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host:6379/0"),
    ],
)
def test_celery_gets_the_same_server_in_its_own_spelling(url: str, expected: str) -> None:
    assert celery_redis_url(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host/0", None),
        ("rediss://host/0", {"ssl_cert_reqs": "required"}),
        ("rediss://host/0?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": "none"}),
        ("rediss://host/0?ssl_cert_reqs=Optional", {"ssl_cert_reqs": "optional"}),
        (
            f"rediss://host?ssl_ca_certs={quote(__file__, safe='')}&ssl_check_hostname=No",
            {
                "ssl_ca_certs": __file__,
                "ssl_check_hostname": False,
                "ssl_cert_reqs": "required",
            },
        ),
    ],
)
def test_certificates_are_checked_unless_the_url_says_otherwise(
    url: str, expected: dict[str, object] | None
) -> None:
    assert tls_options(read_redis_url(url)) == expected


@pytest.mark.parametrize("zone", ["", "%25eb0", "%25Eth-0.1"])
def test_kombu_and_celery_read_the_same_address_of_ipv6(zone: str) -> None:
    spelled = celery_redis_url(f"redis://[fe80::1{zone}]:7000/2")
    backend: Any = RedisBackend(app=celery, url=spelled)

    host = f"fe80::1{zone.replace('%25', '%')}"
    assert url_to_parts(spelled).hostname == host
    assert backend.connparams["host"] == host


@given(user=SECRETS, password=SECRETS, db=st.integers(0, 15), socket=st.booleans())
def test_redis_py_kombu_and_celery_read_the_same_account_and_database(
    user: str, password: str, db: int, *, socket: bool
) -> None:
    account = f"{quote(user, safe='')}:{quote(password, safe='')}"
    url = f"unix://{account}@/r.sock?db={db}" if socket else f"redis://{account}@h:7/{db}"

    spelled = celery_redis_url(url)
    parsed = read_redis_url(url)
    of_redis = connection_parameters(parsed, sync_connection)
    backend: Any = RedisBackend(app=celery, url=spelled.removeprefix("redis+"))
    of_kombu = url_to_parts(spelled.removeprefix("redis+"))

    for read in (of_redis, backend.connparams):
        assert {"username": user, "password": password, "db": db}.items() <= read.items()
    assert (of_kombu.username, of_kombu.password) == (user, password)
    assert str(db) == (of_kombu.query["virtual_host"] if socket else of_kombu.path)
    assert read_redis_url(spelled) == parsed

import pytest

from app.errors import ConfigurationError
from app.storage.redis import celery_redis_url, check_redis_url, redis_place


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:pw@host:6379/2", "redis://:pw@host:6379/2"),
        ("unix:///tmp/redis.sock?db=3", "redis+socket:///tmp/redis.sock?virtual_host=3"),
        ("unix:///tmp/redis.sock", "redis+socket:///tmp/redis.sock?virtual_host=0"),
        ("rediss://host/0", "rediss://host/0?ssl_cert_reqs=required"),
        ("rediss://host/0?x=1", "rediss://host/0?x=1&ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host/0?ssl_cert_reqs=none"),
    ],
)
def test_celery_gets_the_same_server_in_its_own_spelling(url: str, expected: str) -> None:
    assert celery_redis_url(url) == expected


def test_another_scheme_is_refused_without_repeating_the_password() -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL is not a Redis URL") as refusal:
        check_redis_url("http://:secret@host")

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://user:secret@host/0", "host:6379"),
        ("rediss://:secret@host:7000/0", "host:7000"),
        ("unix:///tmp/redis.sock?db=3", "/tmp/redis.sock"),
    ],
)
def test_messages_show_the_place_and_no_password(url: str, place: str) -> None:
    assert redis_place(url) == place

"""URLs of public reports about libpq, SQLAlchemy, redis-py and Celery: read or refused in a line.

Each entry names the report. ``PW`` stands for a password, which no message may contain.
"""

from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from app.configuration.service_urls import read_postgres_url, read_redis_url
from app.configuration.settings import load_settings
from app.configuration.url_parts import secrets_of
from app.errors import ConfigurationError
from app.storage.redis import celery_redis_url
from app.storage.session import connection_parameters

PASSWORD = "Zq9planted"


@dataclass(frozen=True)
class Report:
    """A URL of a report.

    Attributes:
        source: Where the URL was reported.
        url: The URL.
        parts: What every process reads; an empty mapping means that the URL is refused.
    """

    source: str
    url: str
    parts: dict[str, str | int | None]


POSTGRES = [
    Report("sqlalchemy#7375", "postgresql://user:PW@PW@localhost/db", {}),
    Report("sqlalchemy#8278", "postgresql://user:PW@@localhost/SmartToll", {}),
    Report("sqlalchemy#8850", "postgresql://testdb:PW@_PW@127.0.0.1:1000/testdb", {}),
    Report("sqlalchemy#11262", "postgresql+psycopg2://username:p@PW@mydb.com", {}),
    Report("sqlalchemy#12579", "postgresql:://username:PW@logs.svc:8123/default", {}),
    Report("dbmate#144", "postgres://username:PW+PW/e4=@localhost:3306/database", {}),
    Report("dj-database-url#39", "postgres://user:PW?bar@localhost/db", {}),
    Report("openreplay#2290", "postgres://postgres:4k]-%hA|PW*[?j(-(l]{(@db:5432/openreplay", {}),
    Report(
        "openreplay#2290",
        "postgres://p:x@db:5432/openreplay&application_name=db",
        {
            "dbname": "openreplay&application_name=db",
        },
    ),
    Report(
        "crunchy postgres-operator: comma and equals sign in a password",
        "postgresql://step-ca:Lgrd%7DPW,=s%3C%3AO%7C@primary.svc:5432/stepca",
        {"password": "Lgrd}Zq9planted,=s<:O|", "host": "primary.svc"},
    ),
    Report("sqlalchemy#6482", "postgresql://test:PW@1.1.1.1:3306/test@test", {}),
    Report(
        "sqlalchemy#6482",
        "postgresql://test:PW@1.1.1.1:3306/test%40test",
        {
            "dbname": "test@test",
            "password": PASSWORD,
        },
    ),
    Report("azure-docs#6371", "postgresql://scott@myhost:PW@myhost.azure.com:5432/db", {}),
    Report(
        "postgrest#1646",
        "postgres://hero%40dbhost:PW@dbhost.azure.com/dbname",
        {
            "user": "hero@dbhost",
            "host": "dbhost.azure.com",
        },
    ),
    Report("pgcli#1089", "postgres://admin@dev:PW@dev.azure.com:5432/postgres?sslmode=require", {}),
    Report(
        "psycopg#674",
        "postgresql://p:PW@10.0.0.3:5431,10.0.0.2:5431,10.0.0.1:5431/p",
        {
            "host": "10.0.0.3,10.0.0.2,10.0.0.1",
            "port": "5431,5431,5431",
        },
    ),
    Report(
        "psycopg#580",
        "postgresql+psycopg://u:PW@/db?host=h1,h2&port=1,2",
        {
            "host": "h1,h2",
            "port": "1,2",
        },
    ),
    Report(
        "sqlalchemy#8319",
        "postgresql+psycopg2://u:PW@/db?&host=h1:5432&host=h2",
        {
            "host": "h1,h2",
            "port": "5432,",
        },
    ),
    Report("sqlalchemy#10004", "postgresql+asyncpg://u:PW@/db?host=h1:5432&host=h2:5432", {}),
    Report("psycopg2#1003", "postgresql://u:PW@db-0, db-1/data", {}),
    Report("psycopg2#803", "postgresql://a:PW@localhost:5432/mydb?sslmode=disabled", {}),
    Report(
        "psycopg2#803",
        "postgresql://a:PW@localhost:5432/mydb?ssl=true",
        {
            "sslmode": "require",
        },
    ),
    Report("psycopg2#803", "postgresql://a:PW@localhost:5432/mydb?ssl=false", {}),
    Report(
        "asyncpg#737",
        "postgresql://a:PW@db:25060/defaultdb?sslmode=require",
        {
            "sslmode": "require",
            "port": "25060",
        },
    ),
    Report("sqlalchemy#6275", "postgresql+asyncpg://a:PW@localhost/q?sslmode=required", {}),
    Report(
        "python-docs-samples#2635",
        "postgresql://u:PW@/db?host=/cloudsql/p:r:i",
        {
            "host": "/cloudsql/p:r:i",
        },
    ),
    Report("sqlx#144", "postgres://u:PW@%2Fcloudsql%2Fp%3Ai/db", {"host": "/cloudsql/p:i"}),
    Report(
        "prisma#525",
        "postgresql://u:PW@127.0.0.1/db?host=/cloudsql/p:i",
        {
            "host": "/cloudsql/p:i",
        },
    ),
    Report(
        "namadexer#150",
        "postgres://postgres:PW@/cloudsql/n:r:i:5432/chain",
        {
            "dbname": "cloudsql/n:r:i:5432/chain",
        },
    ),
    Report("encode/databases#423", "postgresql://u:PW@/db?unix_sock=/var/lib/postgresql", {}),
    Report(
        "dj-database-url#29",
        "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
        {
            "host": "/var/lib/postgresql",
        },
    ),
    Report(
        "linkding#539",
        "postgresql://u:PW@ep.neon.tech/db?options=endpoint%3Dep-1",
        {
            "options": "endpoint=ep-1",
        },
    ),
    Report(
        "porsager/postgres#705",
        "postgres://u:PW@h/db?sslmode=require&options=project%3Dep",
        {
            "options": "project=ep",
        },
    ),
    Report("prisma/web#5418", "postgres://postgres.x:PW@pooler.com:6543/p?pgbouncer=true", {}),
    Report("cockroach docs#17730", "postgres://m@db:26257/m?sslmode=verify-full&options%3D-c", {}),
    Report(
        "pgjdbc#2508",
        "postgresql://h/p?options=-c%20search_path=a,b%20-c%20geqo=off",
        {
            "options": "-c search_path=a,b -c geqo=off",
        },
    ),
    Report("dj-database-url#321", "postgres://u:PW@host:5432/db?currentSchema=my%20schema", {}),
    Report("asyncpg#1070", "postgresql://h/p?options=-c%20default_transaction_read_only%3Don", {}),
    Report(
        "psycopg#1203",
        "postgresql://u:PW@h/db?sslnegotiation=direct&sslmode=require",
        {
            "sslnegotiation": "direct",
        },
    ),
    Report(
        "pgbouncer#522",
        "postgresql://u:PW@h/db?channel_binding=require",
        {
            "channel_binding": "require",
        },
    ),
    Report(
        "risingwave#19766",
        "postgresql://h:1/db?user=ada&password=PW",
        {
            "user": "ada",
            "password": PASSWORD,
        },
    ),
    Report("risingwave#19766", "postgresql://h:1/db?password=PW&user=PW", {}),
]
REDIS = [
    Report("celery#1553", "redis://:Ro3x<16%3xHO54l]1;PW$Ae6+lR@%+0TQ/q1AZ7mM@localhost/0", {}),
    Report("redis-py#1171", "redis://:!PW#$%^&*()[]@localhost:6379/0", {}),
    Report("redis-py#2374", "unix://:PW/var/run/redis/redis-server.sock", {}),
    Report(
        "redis-py#2374",
        "unix:///var/run/redis.sock?password=PW",
        {
            "path": "/var/run/redis.sock",
            "password": PASSWORD,
        },
    ),
    Report(
        "kombu#460",
        "redis+socket://:PW@/tmp/redis.test.sock",
        {
            "path": "/tmp/redis.test.sock",
            "password": PASSWORD,
            "db": 0,
        },
    ),
    Report("indico#5391", "redis+unix:///project/redis.sock?db=0", {}),
    Report("indico#5391", "unix:///project/redis.sock?virtual_host=1", {"db": 1}),
    Report(
        "celery#2995",
        "redis+socket:///var/spool/redis/redis.sock",
        {
            "path": "/var/spool/redis/redis.sock",
        },
    ),
    Report("celery#5371", "rediss://:PW@h:6380?ssl_cert_reqs=CERT_REQUIRED", {"port": 6380}),
    Report("openFEC#4358", "rediss://:PW@h:6380?ssl_cert_reqs=none", {"port": 6380}),
    Report("openFEC#4358", "redis://:PW@h:6380?ssl=True", {}),
    Report("redis-py#3217", "redis://localhost:6379?ssl_cert_reqs=none&decode_responses=True", {}),
    Report(
        "posthog#2651",
        "rediss://h:PW@ec2.compute.amazonaws.com:14589",
        {
            "username": "h",
            "password": PASSWORD,
            "db": 0,
        },
    ),
    Report("netbox#17567", "redis://:PW@fc00:0:0:1:0:0:1:2121:6379/5", {}),
    Report(
        "netbox#17567",
        "redis://:PW@[fc00:0:0:1:0:0:1:2121]:6379/5",
        {
            "host": "fc00:0:0:1:0:0:1:2121",
            "db": 5,
        },
    ),
    Report("flower#1220", "redis://:PW@[fe80::1]:6379/3", {"host": "fe80::1", "db": 3}),
    Report("SNAGLINE#409", "redis://[::1", {}),
    Report("appsmith#27900", "rediss://PW@master.name.euc1.cache.amazonaws.com:6379", {}),
    Report("koa-redis#52", "redis://hostname:6380?password=PW", {"password": PASSWORD}),
    Report("predis#325", "redis://PW@localhost", {}),
    Report("lettuce#131", "redis://h:PW@ec2.amazonaws.com:14589", {"username": "h"}),
    Report("celery-singleton#34", "sentinel://:PW@h:26379;sentinel://:PW@h:26380", {}),
    Report("celery-redis-sentinel#17", "redis+sentinel://:PW@h:1,h2:2/service/0", {}),
    Report("redis-py#537", "redis://node1:17700,node2:17700/0", {}),
    Report("infisical#876", "redis://:PW@redis-host:6379/", {"host": "redis-host", "db": 0}),
    Report("docmost#547", "redis://redis_1:6379", {"host": "redis_1"}),
    Report("omnivore#4378", "'redis://redis:6379'", {}),
    Report("frappe_docker#1621", "redis-cache:6379", {}),
    Report(
        "yamtrack#554",
        "redis://username:PW,word@valkey.lan:6379/2",
        {
            "password": f"{PASSWORD},word",
            "db": 2,
        },
    ),
    Report("celery#3845", "redis://{user}:PW@{host}:{port}/{vhost}", {}),
    Report("predis: RESP options", "redis://:PW@h/0?health_check_interval=30", {}),
    Report("fx-private-relay#5131", "rediss://:PW@h/0?ssl_cert_reqs=None", {"host": "h"}),
]


@pytest.mark.parametrize("report", POSTGRES, ids=lambda report: f"{report.source} {report.url}")
def test_a_reported_url_of_postgres_is_read_or_refused(report: Report) -> None:
    url = report.url.replace("PW", PASSWORD)
    if not report.parts:
        assert_refused("database_url", url)
        return

    read = read_postgres_url(url)
    given = connection_parameters(url, "agentchord", {})

    assert report.parts.items() <= read.parameters.items()
    assert report.parts.items() - {("options", report.parts.get("options"))} <= given.items()
    assert str(report.parts.get("options", "")) in given["options"]
    assert PASSWORD not in repr(read) + read.place
    assert secrets_of(url) >= {word for word in [read.parameters.get("password")] if word}


@pytest.mark.parametrize("report", REDIS, ids=lambda report: f"{report.source} {report.url}")
def test_a_reported_url_of_redis_is_read_or_refused(report: Report) -> None:
    url = report.url.replace("PW", PASSWORD)
    if not report.parts:
        assert_refused("redis_url", url)
        return

    read = read_redis_url(url)
    again = read_redis_url(celery_redis_url(url))

    assert report.parts.items() <= vars(read).items()
    assert {**vars(again), "tls": None} == {**vars(read), "tls": None}
    assert PASSWORD not in repr(read) + read.place


def assert_refused(setting: str, url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(**{setting: SecretStr(url)})

    assert PASSWORD not in str(refused.value)
    assert "\n" not in str(refused.value)

"""The PG* variables of libpq: the built-in Postgres ignores them, and other sessions keep ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg.pq import Conninfo

from app.configuration.settings import load_settings
from app.embedded.postgres import PostgresKind
from app.embedded.server import SharedServer
from app.errors import ConfigurationError, EmbeddedServicesError
from app.storage import schema
from app.storage.session import create_sync_engine
from tests.support.pace import scaled
from tests.support.stack import search_path

#: Variables that libpq reads beside those of its parameters, with values that libpq accepts.
OTHERS = {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German", "PGGEQO": "off", "PGDATA": "/nowhere"}
SETTINGS = """
    SELECT current_setting('timezone'), current_setting('datestyle'),
        current_setting('client_encoding'), current_setting('default_transaction_isolation'),
        current_setting('statement_timeout')
"""
OURS = ("UTC", "ISO, MDY", "UTF8", "read committed")


def variables() -> dict[str, str]:
    """A wrong value for each variable of libpq, except PGSERVICE, which libpq always obeys."""
    names = [option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar]
    return {name: "wrong" for name in names if name != "PGSERVICE"} | OTHERS


def settings_of_a_session(url: str) -> tuple[str, ...]:
    engine = create_sync_engine(url, application_name="agentchord test")
    with engine.connect() as connection:
        return tuple(connection.exec_driver_sql(SETTINGS).one())


def test_no_variable_reaches_the_built_in_postgres(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    (home.parent / "services.conf").write_text("[other]\nhost=nowhere\noptions=-c jit=on\n")
    monkeypatch.setenv("PGSERVICEFILE", str(home.parent / "services.conf"))
    monkeypatch.setenv("PGSERVICE", "other")
    server = SharedServer(PostgresKind(), home)

    try:
        url = server.start()
        schema.upgrade(url)
        found = settings_of_a_session(url)
        schema.require(url)
    finally:
        server.stop()

    assert found == (*OURS, "1min")


@pytest.mark.parametrize(
    ("name", "value"), [("PGSERVICE", "none"), ("PGTZ", "none"), ("PGDATESTYLE", "none")]
)
def test_a_variable_that_no_parameter_replaces_is_told_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(home.parent / "services.conf"))
    (home.parent / "services.conf").write_text("[other]\n")
    monkeypatch.setenv(name, value)
    server = SharedServer(PostgresKind(), home)

    with pytest.raises(EmbeddedServicesError, match=f"(?s)variable of the environment.*{name}"):
        server.start()

    assert not server.held


def test_sessions_keep_the_settings_on_which_the_code_relies(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=50s -c timezone=Asia/Tokyo")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "standby")

    found = settings_of_a_session(database_url)

    assert found == (*OURS, "50s")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("PGSSLMODE", "Zq9", "invalid sslmode value in the environment variable PGSSLMODE"),
        ("PGREQUIREAUTH", "Zq9", "require_auth value in the environment variable PGREQUIREAUTH"),
        ("PGGSSENCMODE", "Zq9", "gssencmode value in the environment variable PGGSSENCMODE"),
        ("PGSERVICE", "Zq9", "service not found in the environment variable PGSERVICE"),
        ("PGOPTIONS", "Zq9", "-c name=value as options in the environment variable PGOPTIONS"),
    ],
)
def test_a_variable_with_a_wrong_value_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, problem: str
) -> None:
    (tmp_path / "services.conf").write_text("[other]\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/chord")
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    assert problem in str(refused.value)
    assert "Zq9" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_variable_that_only_the_server_can_refuse_is_told_without_a_wait(
    database_url: str, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": search_path(),
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "AGENTCHORD_HOME": str(tmp_path),
        "PGTZ": "none",
    }

    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "migrate"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )

    assert done.returncode == 1
    assert 'invalid value for parameter "TimeZone"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_tables_may_lie_in_another_schema(database_url: str) -> None:
    with create_sync_engine(database_url, application_name="agentchord test").begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA one")
    url = database_url + "&options=-c%20search_path%3Done"

    schema.upgrade(url)
    engine = create_sync_engine(url, application_name="agentchord test")
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'runs' ORDER BY 1"
        ).scalars()

        assert list(found) == ["one", "public"]
    schema.require(url)

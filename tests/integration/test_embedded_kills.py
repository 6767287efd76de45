"""The embedded services under kills: shared, ended with the last user, back after any kill."""

import os
import signal
from pathlib import Path

import pytest

from app.embedded import Services
from tests.support.embedded_home import (
    answers,
    gone,
    keeper_ids,
    kill_keepers,
    save,
    saved,
    server_ids,
    silent,
    user_process,
)
from tests.support.waiting import wait_until


def test_a_second_process_joins_the_same_servers_and_the_last_one_stops_them(home: Path) -> None:
    services = Services(home)
    urls = services.start()
    before = server_ids(urls)

    with user_process(home) as (_, theirs):
        assert theirs() == urls
        services.stop()
        after = server_ids(urls)

    assert after == before
    assert silent(urls)


def test_a_process_launches_servers_that_another_process_waits_for(home: Path) -> None:
    services = Services(home)
    services.launch(postgres=True, redis=True)
    keepers = keeper_ids(home)

    with user_process(home) as (_, theirs):
        urls = theirs()
    assert keeper_ids(home) == keepers, "the process that launched them still keeps them"
    assert answers(urls)

    services.stop()
    assert silent(urls)


def test_a_service_that_is_not_named_is_not_launched(home: Path) -> None:
    services = Services(home)
    services.launch(postgres=False, redis=True)

    assert not services.postgres.held
    assert services.redis.held
    services.stop()


def test_two_processes_that_start_at_once_start_one_server(home: Path) -> None:
    with user_process(home) as (_, one), user_process(home) as (_, other):
        first, second = one(), other()
        keepers = keeper_ids(home)

    assert first == second
    assert len(keepers) == 2  # one of Postgres, one of Redis


def test_the_servers_end_by_themselves_when_the_last_user_is_killed(home: Path) -> None:
    with user_process(home) as (process, theirs):
        urls = theirs()
        process.kill()

        wait_until(lambda: silent(urls), what="servers without a user to be gone")


def test_the_servers_stay_when_one_of_two_users_is_killed(home: Path) -> None:
    with Services(home) as urls:
        with user_process(home) as (process, theirs):
            theirs()
            before = server_ids(urls)
            process.kill()
            process.wait()

        after = server_ids(urls)

    assert after == before


@pytest.mark.parametrize("again", [True, False], ids=["start called again", "left alone"])
def test_killed_servers_are_started_again_with_their_data(home: Path, again: bool) -> None:
    services = Services(home)
    urls = services.start()
    save(urls, "kept")
    before = server_ids(urls)
    for number in before:
        os.kill(number, signal.SIGKILL)

    if again:
        services.start()
    wait_until(lambda: answers(urls), what="servers to be back")
    after, texts = server_ids(urls), saved(urls)
    services.stop()

    assert not set(before) & set(after)
    assert texts == ["kept"]


def test_a_start_recovers_from_a_power_cut(home: Path) -> None:
    services = Services(home)
    urls = services.start()
    save(urls, "kept")
    servers = server_ids(urls)
    kill_keepers(home)
    for number in servers:
        os.kill(number, signal.SIGKILL)
    (home / "run" / "postgres.json").write_text("{half a rec", encoding="utf-8")

    with Services(home) as recovered:
        texts = saved(recovered)
    services.stop()

    assert texts == ["kept"]


def test_servers_whose_keepers_were_killed_are_replaced_by_the_next_start(home: Path) -> None:
    services = Services(home)
    urls = services.start()
    save(urls, "kept")
    before = server_ids(urls)
    kill_keepers(home)

    with Services(home) as replaced:
        after, texts = server_ids(replaced), saved(replaced)
    services.stop()

    assert not set(before) & set(after)
    assert texts == ["kept"]
    assert all(gone(number) for number in (*before, *after))


def test_the_last_user_stops_servers_whose_keepers_were_killed(home: Path) -> None:
    services = Services(home)
    urls = services.start()
    numbers = server_ids(urls)
    kill_keepers(home)

    services.stop()

    assert all(gone(number) for number in numbers)
    assert silent(urls)


def test_a_stale_pid_file_does_not_kill_a_stranger(home: Path) -> None:
    with Services(home):
        pass
    (home / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
    (home / "redis" / "redis.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")

    with Services(home) as urls:
        working = answers(urls)

    assert working


def test_an_interrupted_first_start_is_forgotten(home: Path) -> None:
    half = home / "postgres.new" / "base"
    half.mkdir(parents=True)
    (half.parent / "PG_VERSION").write_text("18\n", encoding="utf-8")

    with Services(home) as urls:
        working = answers(urls)

    assert working
    assert not half.parent.exists()

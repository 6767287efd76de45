"""The messages about Flower's accounts and port before it starts."""

import socket
from typing import Any

import click
import pytest
from tornado.options import OptionParser

from app import flower_access


def options(**given: Any) -> OptionParser:
    parser = OptionParser()
    defaults = {"auth": None, "basic_auth": None, "unix_socket": "", "address": "127.0.0.1"}
    oauth = {"auth_provider": None, "oauth2_key": None}
    rest = {"port": 0, "certfile": None, "url_prefix": ""}
    for name, value in (defaults | oauth | rest | given).items():
        parser.define(name, default=value, type=object)
    return parser


def test_users_are_named_and_passwords_are_not() -> None:
    given = options(basic_auth=["ann:very", "ben:secret"])

    assert flower_access._accounts(given) == "users ann, ben"


def test_the_account_of_the_settings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCHORD_FLOWER_BASIC_AUTH", "ann:very:secret")
    given = options()

    assert flower_access._accounts(given) == "user ann"
    assert given.basic_auth == ["ann:very:secret"]


def test_accounts_of_an_oauth_provider_need_one() -> None:
    with pytest.raises(click.ClickException, match="--auth-provider"):
        flower_access._accounts(options(auth=".*@example.com"))

    given = options(auth=".*@example.com", auth_provider="a.Handler", oauth2_key="k")
    assert flower_access._accounts(given) == "for the accounts of its OAuth provider"


def test_a_taken_port_is_named_with_the_option_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(click.ClickException) as refused:
            flower_access._check_port(options(port=port))

    assert f"port {port} of 127.0.0.1: Address already in use" in refused.value.message
    assert "--port" in refused.value.message


def test_a_free_port_is_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    flower_access._check_port(options(port=port))

    socket.create_server(("127.0.0.1", port)).close()

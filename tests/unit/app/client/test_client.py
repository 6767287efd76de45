"""How clients of one platform relate to each other; nothing is connected here."""

from types import SimpleNamespace
from typing import cast

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import create_async_engine

from app.bootstrap import Platform
from app.client.client import Client
from app.configuration.settings import Settings
from app.domain.scope import ALL, Scope
from app.errors import OutOfScope
from app.events.signals import Signals

ACME, OTHER = Scope(tenant="acme"), Scope(tenant="other")


@pytest.fixture
def client() -> Client:
    parts = {
        "engine": create_async_engine("postgresql+psycopg://127.0.0.1:9/nowhere"),
        "signals": Signals(Redis()),
        **dict.fromkeys(("redis", "scheduler")),
    }
    return Client(cast(Platform, SimpleNamespace(settings=Settings(), **parts)))


def test_clients_of_one_scope_share_their_batches_and_those_of_two_scopes_never_do(
    client: Client,
) -> None:
    first, second = client.within(ACME).runs, client.within(ACME).runs

    assert first is second
    assert client.within(OTHER).runs is not first
    assert client.within(ALL).runs is client.runs


def test_a_client_cannot_widen_its_scope(client: Client) -> None:
    acme = client.within(ACME)

    for scope in (ALL, OTHER):
        with pytest.raises(OutOfScope, match="cannot be widened"):
            acme.within(scope)


@pytest.mark.parametrize("subject", ["limits", "live_state"])
def test_what_belongs_to_the_installation_is_no_subject_of_a_tenants(
    client: Client, subject: str
) -> None:
    assert getattr(client, subject) is not None
    with pytest.raises(OutOfScope, match="scope ALL"):
        getattr(client.within(ACME), subject)

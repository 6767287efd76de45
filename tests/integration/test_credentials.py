"""Tokens that expire, through the real SDKs, with a provider that accepts only valid ones."""

import asyncio
import io
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import structlog

from app.bootstrap import client_factories
from app.configuration.sections import LoggingSettings
from app.configuration.settings import load_settings
from app.domain.usage import Partial, Usage
from app.errors import AuthenticationFailed, ConfigurationError, CredentialsFailed, ProviderError
from app.llm.anthropic import AnthropicClient
from app.llm.base import LLMClient, LLMResponse
from app.llm.credential_cache import CredentialCache
from app.llm.openai import OpenAIClient
from app.telemetry.logging import configure_logging
from app.telemetry.redaction import Redactor
from tests.support.token_server import TokenServer, token_server

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6"}


@pytest.fixture(params=["openai", "anthropic"])
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    streams: bool = request.param
    return streams


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with token_server() as running:
        yield running


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log lines of a worker from the level DEBUG on, with the lines of the SDKs."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging(LoggingSettings(level="DEBUG", format="json"), Redactor())
    yield text
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


class Caller:
    """A client of the server whose tokens come from a function."""

    def __init__(self, protocol: str, url: str, function: Callable[[], Any], **cache: Any) -> None:
        credentials = CredentialCache(function, path="acme.cloud:token", provider="acme", **cache)
        kind, end = (OpenAIClient, "/v1") if protocol == "openai" else (AnthropicClient, "")
        self.model = MODELS[protocol]
        self.texts: list[str] = []
        self.broken: list[Partial] = []
        self.client: LLMClient = kind(
            "none", base_url=f"{url}{end}", provider="acme", credentials=credentials
        )

    async def ask(self, *, stream: bool = False, **arguments: Any) -> LLMResponse:
        return await self.client.complete_with_tools(
            [{"role": "user", "content": "Hello."}],
            self.model,
            stream=stream,
            on_text=self.texts.append,
            on_broken=self.broken.append,
            **arguments,
        )


@pytest.fixture
async def caller_of(protocol: str, server: TokenServer) -> AsyncIterator[Callable[..., Caller]]:
    """Makes callers, and closes them."""
    made: list[Caller] = []

    def make(function: Callable[[], Any], **cache: Any) -> Caller:
        made.append(Caller(protocol, server.url, function, **cache))
        return made[-1]

    yield make
    for caller in made:
        await caller.client.close()


async def test_the_token_is_sent_in_place_of_a_key(
    server: TokenServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    caller = caller_of(lambda: {"token": server.issue(), "headers": {"X-Project": "acme-prod"}})

    response = await caller.ask(stream=stream)

    (headers,) = server.accepted
    assert response.content.startswith("Hello!")
    assert headers["authorization"] == f"Bearer {server.issued[0]}"
    assert headers["x-project"] == "acme-prod"
    assert "none" not in (headers.get("x-api-key"), headers.get("api-key"))


async def test_concurrent_calls_ask_for_one_token(
    server: TokenServer, caller_of: Callable[..., Caller]
) -> None:
    caller = caller_of(server.issue)

    await asyncio.gather(*(caller.ask() for _ in range(20)))

    assert len(server.issued) == 1
    assert len(server.accepted) == 20


async def test_a_token_is_replaced_when_its_lifetime_ends(
    server: TokenServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    now_s = 1000.0
    caller = caller_of(lambda: {"token": server.issue(), "expires_in_s": 3600}, clock=lambda: now_s)

    await caller.ask(stream=stream)
    now_s += 3500
    await caller.ask(stream=stream)
    now_s += 100
    server.valid.clear()
    await caller.ask(stream=stream)

    used = [headers["authorization"].removeprefix("Bearer ") for headers in server.accepted]
    assert used == [server.issued[0], server.issued[0], server.issued[1]]
    assert server.rejected == []


async def test_a_rejected_token_is_replaced_and_the_call_is_sent_again(
    server: TokenServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    caller = caller_of(server.issue)
    await caller.ask(stream=stream)
    server.valid.clear()
    caller.texts.clear()
    sent: list[None] = []

    async def before_sent() -> None:
        sent.append(None)

    responses = await asyncio.gather(
        *(caller.ask(stream=stream, before_sent=before_sent) for _ in range(10))
    )

    assert [response.output_tokens for response in responses] == [10] * 10
    assert (len(server.issued), len(server.rejected), len(server.accepted)) == (2, 10, 11)
    assert len(sent) == 10  # the second requests do not wait for the start of their calls again
    assert caller.broken == []
    if stream:
        assert "".join(caller.texts).count("Hello") == 10


async def test_a_call_is_sent_again_only_once(
    server: TokenServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    numbers = iter(range(100))
    caller = caller_of(lambda: f"ya29.never-valid-{next(numbers)}")

    with pytest.raises(AuthenticationFailed) as failed:
        await caller.ask(stream=stream)

    assert failed.value.status == 401
    assert failed.value.request_id == "req_401"
    assert len(server.rejected) == 2
    assert next(numbers) == 2


async def test_the_same_token_is_not_sent_again(
    server: TokenServer, caller_of: Callable[..., Caller]
) -> None:
    caller = caller_of(lambda: "ya29.always-the-same")

    with pytest.raises(AuthenticationFailed):
        await caller.ask()

    assert len(server.rejected) == 1


async def test_a_key_that_is_rejected_is_not_sent_again(protocol: str, server: TokenServer) -> None:
    kind, end = (OpenAIClient, "/v1") if protocol == "openai" else (AnthropicClient, "")
    client = kind("sk-a-key", base_url=f"{server.url}{end}")

    with pytest.raises(AuthenticationFailed):
        await client.complete("Hello.", MODELS[protocol])
    await client.close()

    assert len(server.rejected) == 1


async def test_without_a_token_nothing_is_sent_and_nothing_is_booked(
    server: TokenServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    def fail() -> str:
        raise ConnectionError("the token server is down")

    caller = caller_of(fail)

    with pytest.raises(CredentialsFailed, match="the token server is down") as failed:
        await caller.ask(stream=stream)

    assert (failed.value.reached, failed.value.provider, failed.value.status) == (
        False,
        "acme",
        None,
    )
    assert server.accepted == server.rejected == []
    assert caller.broken == []


async def test_a_call_that_is_cancelled_while_it_waits_for_a_token_is_free(
    server: TokenServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    asked = asyncio.Event()

    async def hang() -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    caller = caller_of(hang)
    call = asyncio.create_task(caller.ask(stream=stream))
    await asked.wait()

    call.cancel()
    await asyncio.wait({call})

    assert call.cancelled()
    assert [(came.usage, came.final) for came in caller.broken] == [(Usage(), True)]
    assert server.rejected == []


async def test_no_message_no_traceback_and_no_log_line_has_a_token(
    protocol: str,
    server: TokenServer,
    caller_of: Callable[..., Caller],
    stream: bool,
    log: io.StringIO,
) -> None:
    def issue_invalid() -> dict[str, Any]:
        token = server.issue()
        server.valid.clear()
        return {"token": token, "headers": {"x-second": f"second-{token}"}}

    async def fail() -> str:
        raise ValueError(f"no use for {server.issue()}")

    errors: list[ProviderError] = []
    for function in (issue_invalid, fail):
        try:
            await caller_of(function).ask(stream=stream)
        except ProviderError as error:
            errors.append(error)

    shown = log.getvalue() + "".join(
        text for error in errors for text in traceback.format_exception(error)
    )
    assert "the token [redacted] is not valid" in str(errors[0])
    assert "no use for [redacted]" in str(errors[1])
    assert "credentials_failed" in shown
    assert protocol == "openai" or "Request options" in shown  # the SDK's line has all headers
    assert len(server.issued) == 3
    assert not any(token in shown for token in server.issued)


async def test_a_provider_of_the_configuration_has_its_function(
    protocol: str, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_SERVER", server.url)
    settings = load_settings(
        providers={
            "acme": {
                "protocol": protocol,
                "base_url": f"{server.url}/v1" if protocol == "openai" else server.url,
                "credentials": "tests.support.cloud_tokens:token",
            }
        }
    )

    client = client_factories(settings)["acme"]()
    await client.complete("Hello.", MODELS[protocol])
    await client.close()

    assert len(server.accepted) == len(server.issued) == 1


async def test_a_function_that_cannot_be_imported_stops_the_worker_at_its_start() -> None:
    settings = load_settings(
        providers={
            "acme": {
                "protocol": "openai",
                "base_url": "http://127.0.0.1:9/v1",
                "credentials": "no_such_module:token",
            }
        }
    )

    with pytest.raises(ConfigurationError, match=r"^providers\.acme\.credentials: 'no_such_module"):
        client_factories(settings)

"""Remote agents against a real server: requests, signatures, answers of every kind, limits."""

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.errors import (
    AddressRefused,
    AgentError,
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    Overloaded,
    RateLimited,
    ResultTooLarge,
    ServerFailure,
)
from app.kinds.base import AgentContext
from app.kinds.http import HttpKind
from tests.support.http_server import serving_on_a_port
from tests.support.markdown import ROOT
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio

SECRETS = {"AGENT_SECRET_REVIEW": "hush", "AGENT_SECRET_TOKEN": "Bearer t0ken"}
OTHERS = {"OPENAI_API_KEY": "sk-very-secret"}


class Remote:
    """A server with given answers, which records its requests."""

    def __init__(self) -> None:
        self.answer = web.json_response({"approved": True})
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.gone = asyncio.Event()
        self.arrived = asyncio.Event()
        self.delay_s = 0.0
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        self.arrived.set()
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.gone.set()
            raise
        return self.answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_post("/agent", self.serve)
        async with serving_on_a_port(application, handler_cancellation=True) as url:
            self.url = f"{url}/agent"
            yield


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    server = Remote()
    async with server.running():
        yield server


def secret(name: str) -> SecretStr | None:
    value = (SECRETS | OTHERS).get(name)
    return SecretStr(value) if value else None


async def ask(url: str, *, allow: tuple[str, ...] = ("127.0.0.1",), **config: Any) -> Any:
    context = AgentContext(
        agent="reviewer",
        module="General",
        workflow="w",
        run_id="run",
        agent_run_id="ar",
        attempt=3,
        tenant=None,
        config={"url": url, **config},
        inputs={"amount": 119.5, "vendor": "Acmé"},
        timeout_s=5.0,
        max_output_bytes=10_000,
    )
    return await HttpKind(allow=allow, secret=secret).run(context)


async def test_inputs_are_posted_as_json_and_the_answer_is_the_output(remote: Remote) -> None:
    output = await ask(remote.url, headers={"X-Team": "finance"})

    ((headers, body),) = remote.requests
    assert output == {"approved": True}
    assert json.loads(body) == {"amount": 119.5, "vendor": "Acmé"}
    assert headers["Content-Type"] == "application/json"
    assert (headers["Idempotency-Key"], headers["X-Team"]) == ("ar-3", "finance")
    assert "AgentChord-Signature" not in headers


async def test_a_request_is_signed_over_its_time_url_key_and_body(remote: Remote) -> None:
    await ask(
        f"{remote.url}?of=é#part",
        secret_env="AGENT_SECRET_REVIEW",
        headers={"Authorization": {"env": "AGENT_SECRET_TOKEN"}},
    )

    ((headers, body),) = remote.requests
    message = headers["AgentChord-Timestamp"].encode() + b"." + body
    expected = hmac.new(b"hush", message, hashlib.sha256).hexdigest()
    assert headers["AgentChord-Signature"] == f"v1={expected}"
    assert headers["Authorization"] == "Bearer t0ken"
    url = f"{remote.url}?of=%C3%A9"
    is_authentic = documented_check()
    assert is_authentic("hush", headers, url, body)
    assert not is_authentic("other", headers, url, body)
    assert not is_authentic("hush", headers, f"{url}&to=x", body)
    assert not is_authentic("hush", headers, url, body + b" ")
    for name in ("Idempotency-Key", "AgentChord-Timestamp"):
        assert not is_authentic("hush", headers | {name: f"{headers[name]}0"}, url, body)
    del headers["AgentChord-Signature-V2"]
    assert not is_authentic("hush", headers, url, body)


SIGNED = ("AgentChord-Timestamp", "AgentChord-Signature-V2", "Idempotency-Key")
GARBAGE = st.text(max_size=20) | st.sampled_from(["²", "1" * 5000, "-1", "1e3", "v2=", "\udcff"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(SIGNED), GARBAGE), st.binary(max_size=20))
def test_the_documented_check_of_a_signature_refuses_garbage(
    headers: dict[str, str], body: bytes
) -> None:
    assert documented_check()("hush", headers, "https://a.example/agent", body) is False


def documented_check() -> Any:
    """The function of docs/agents.md that checks a signature."""
    page = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python run\n(.*?)```", page, re.DOTALL)
    (code,) = (block for block in blocks if "hmac" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["is_authentic"]


@pytest.mark.parametrize("value", ["a\r\nHost: b", "a\0", "\udcff", " a"])
async def test_a_variable_that_is_no_value_of_a_header_stops_the_request_and_is_not_shown(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setitem(SECRETS, "AGENT_SECRET_TOKEN", value)

    with pytest.raises(AuthenticationFailed, match="correct the variable") as refused:
        await ask(remote.url, headers={"X-Key": {"env": "AGENT_SECRET_TOKEN"}})

    assert "Host: b" not in str(refused.value)
    assert remote.requests == []


@pytest.mark.parametrize("name", ["AGENT_SECRET_MISSING", "OPENAI_API_KEY"])
async def test_a_secret_that_is_not_set_or_not_for_agents_stops_the_request(
    remote: Remote, name: str
) -> None:
    with pytest.raises(AuthenticationFailed, match=f"{name} is not set"):
        await ask(remote.url, headers={"X-Key": {"env": name}})

    assert remote.requests == []


async def test_private_addresses_are_refused_before_any_request(remote: Remote) -> None:
    with pytest.raises(AddressRefused, match=r"127\.0\.0\.1"):
        await ask(remote.url, allow=("10.0.0.0/8",))

    assert remote.requests == []


@pytest.mark.parametrize(
    ("status", "error", "retried"),
    [
        (400, BadRequest, False),
        (401, AuthenticationFailed, False),
        (403, AuthenticationFailed, False),
        (404, BadRequest, False),
        (408, ServerFailure, True),
        (409, BadRequest, False),
        (422, BadRequest, False),
        (425, ServerFailure, True),
        (429, RateLimited, True),
        (500, ServerFailure, True),
        (502, ServerFailure, True),
        (503, Overloaded, True),
        (529, Overloaded, True),
    ],
)
async def test_each_status_is_a_failure_of_its_class(
    remote: Remote, status: int, error: type[AgentError], retried: bool
) -> None:
    remote.answer = web.Response(status=status, text="no, because", headers={"Retry-After": "7"})

    with pytest.raises(error, match=f"answered {status}: no, because") as caught:
        await ask(remote.url)

    assert type(caught.value) is error
    assert caught.value.retriable is retried
    assert vars(caught.value)["retry_after_s"] == 7


async def test_a_redirect_is_not_followed(remote: Remote) -> None:
    remote.answer = web.Response(status=307, headers={"Location": "http://169.254.169.254/"})

    with pytest.raises(BadRequest, match="redirects"):
        await ask(remote.url)

    assert len(remote.requests) == 1


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (web.Response(text="plain"), "plain"),
        (web.Response(status=204), None),
        (web.Response(body=b"[1, 2]", content_type="application/problem+json"), [1, 2]),
    ],
)
async def test_other_answers_are_outputs_too(
    remote: Remote, answer: web.Response, output: Any
) -> None:
    remote.answer = answer

    assert await ask(remote.url) == output


async def test_what_claims_to_be_json_and_is_not_may_be_asked_for_again(remote: Remote) -> None:
    remote.answer = web.Response(body=b'{"a": NaN', content_type="application/json")

    with pytest.raises(ServerFailure, match="invalid JSON") as caught:
        await ask(remote.url)

    assert caught.value.retriable


async def test_an_answer_of_fifty_megabytes_is_not_read_to_its_end(remote: Remote) -> None:
    remote.answer = web.Response(body=b"x" * 50_000_000)

    with pytest.raises(ResultTooLarge, match="more than 10,000 bytes"):
        await ask(remote.url)


async def test_an_answer_that_takes_too_long_is_a_failed_connection(remote: Remote) -> None:
    remote.delay_s = 30.0

    with pytest.raises(ConnectionFailed, match=r"within 0\.1 s"):
        await ask(remote.url, timeout=0.1)


async def test_cancelling_closes_the_connection(remote: Remote) -> None:
    remote.delay_s = 30.0
    asking = asyncio.create_task(ask(remote.url))
    await asyncio.wait_for(remote.arrived.wait(), scaled(5))

    asking.cancel()

    await asyncio.wait_for(remote.gone.wait(), scaled(5))


async def test_a_server_that_is_not_there_is_a_failed_connection() -> None:
    with pytest.raises(ConnectionFailed, match="could not be reached") as caught:
        await ask("http://127.0.0.1:9/agent")

    assert caught.value.retriable

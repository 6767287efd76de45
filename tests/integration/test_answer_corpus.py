"""Recorded answers of real providers and servers, read by the clients through the real SDKs."""

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

import app.errors
from app.errors import ProviderError
from app.llm.base import LLMClient, LLMResponse
from tests.support.answers import PRICE, Recorded, answering, corpus, skeleton
from tests.support.llm_clients import client_of

pytestmark = pytest.mark.anyio

LEAST_ANSWERS, LEAST_PROVIDERS, LEAST_OF_EACH = 400, 12, 20


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def clients(anyio_backend: str) -> AsyncIterator[dict[str, LLMClient]]:
    async with answering({recorded.name: recorded.shape for recorded in corpus()}) as url:
        protocols = {recorded.protocol for recorded in corpus()}
        made = {protocol: client_of(protocol, url) for protocol in protocols}
        yield made
        for client in made.values():
            await client.close()


async def ask(client: LLMClient, recorded: Recorded) -> LLMResponse:
    request = recorded.shape["request"]
    return await client.complete(
        recorded.prompt,
        request["model"],
        max_tokens=request.get("max_tokens"),
        tools=recorded.tools,
        stream=recorded.streamed,
    )


def test_the_corpus_is_large_and_each_answer_has_its_source() -> None:
    own_form = [recorded for recorded in corpus() if "same_form_as" not in recorded.shape]
    of_each = Counter(recorded.provider for recorded in own_form)

    assert len(own_form) >= LEAST_ANSWERS
    assert len(of_each) >= LEAST_PROVIDERS
    assert min(of_each.values()) >= LEAST_OF_EACH
    assert all(recorded.shape["source"].startswith("https://") for recorded in corpus())
    assert len({recorded.name for recorded in corpus()}) == len(corpus())


def test_no_two_answers_have_the_same_form_unless_they_say_so() -> None:
    forms = defaultdict(list)
    for recorded in corpus():
        forms[_form(recorded.shape)].append(recorded)

    for first, *others in forms.values():
        assert "same_form_as" not in first.shape, first.name
        assert {other.shape.get("same_form_as") for other in others} <= {first.name}


@pytest.mark.parametrize("recorded", corpus(), ids=lambda recorded: recorded.name)
async def test_an_answer_is_read_as_it_should_be(
    clients: dict[str, LLMClient], recorded: Recorded
) -> None:
    expect, client = recorded.expect, clients[recorded.protocol]

    if "error" in expect:
        with pytest.raises(ProviderError) as failed:
            await ask(client, recorded)
        error = failed.value
        assert type(error) is getattr(app.errors, expect["error"]), str(error)
        if "retry_after_s" in expect:
            assert error.retry_after_s == pytest.approx(expect["retry_after_s"])
        if recorded.usage is not None:
            assert error.partial is not None
            assert error.partial.final
            assert error.partial.usage == recorded.usage
        elif Decimal(expect.get("dollars", 1)) == 0:
            assert error.partial is None
            assert (error.status or 0) >= 400
        return
    response = await ask(client, recorded)
    assert response.content == expect["text"]
    assert response.finish_reason == expect["finish"]
    if expect["finish"] != "length":  # the calls of an answer that was cut are not executed
        called = [
            {"name": call.name, "arguments": json.loads(call.arguments)}
            for call in response.tool_calls or ()
        ]
        assert called == expect.get("calls", [])
    assert response.metadata.get("usage_missing", False) == expect.get("usage_missing", False)
    if not expect.get("usage_missing"):
        assert response.usage == recorded.usage
        assert PRICE.cost(response.usage) == Decimal(expect["dollars"])


def _form(shape: Any) -> str:
    if "text" in shape:
        return str(shape["text"])
    return json.dumps(skeleton(shape["events"] if "events" in shape else shape["body"]))

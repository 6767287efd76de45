"""Images and PDFs through the real SDKs: what the simulator counts is never above the bound."""

import hashlib

import pytest

from app.errors import BadRequest
from app.llm.base import Message
from app.llm.parts import Part, part_of
from app.llm.tokens import upper_bound_tokens
from app.simulator import Simulator
from tests.support.llm_clients import client_of
from tests.support.media import gif, jpeg, pdf, png, webp

pytestmark = pytest.mark.anyio

FILES = {
    "png": png(640, 480),
    "jpeg": jpeg(3024, 4032),
    "gif": gif(10, 4000),
    "webp": webp(1, 1),
    "huge": png(60_000, 60_000),
    "pdf": pdf("Invoice 7", "Total: 12.50 EUR (paid)"),
}
MODELS = {
    "openai": ("gpt-4o", "gpt-4o-mini", "gpt-4.1-nano", "gpt-5.4", "gpt-6-astra", "sim-large"),
    "responses": ("gpt-4o-mini", "gpt-5.4", "gpt-6-astra"),
    "anthropic": ("claude-haiku-4-5", "claude-sonnet-5"),
}
PAIRS = [(protocol, model) for protocol, models in MODELS.items() for model in models]


def asked(*parts: Part) -> list[Message]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


@pytest.fixture
async def simulator() -> object:
    async with Simulator() as running:
        yield running


@pytest.mark.parametrize(("protocol", "model"), PAIRS)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_file_reaches_the_provider_whole_and_within_its_bound(
    simulator: Simulator, protocol: str, model: str, stream: bool
) -> None:
    client = client_of(protocol, simulator.anthropic_base_url)
    parts = [part_of(content, name="file.pdf", detail="high") for content in FILES.values()]
    try:
        for messages in (*(asked(part) for part in parts), asked(*parts)):
            answer = await client.complete_with_tools(messages, model, max_tokens=20, stream=stream)
            assert 0 < answer.input_tokens <= upper_bound_tokens(messages, model=model)
    finally:
        await client.close()

    hashes = [hashlib.sha256(content).hexdigest()[:16] for content in FILES.values()]
    sent = [record.files for record in simulator.ledger()]
    assert sent == [*((digest,) for digest in hashes), tuple(hashes)]


@pytest.mark.parametrize("protocol", MODELS)
async def test_the_simulator_refuses_what_providers_refuse(
    simulator: Simulator, protocol: str
) -> None:
    client = client_of(protocol, simulator.anthropic_base_url)
    lying = {**part_of(png(9, 9)), "media_type": "image/jpeg"}
    try:
        with pytest.raises(BadRequest, match="does not match the media type"):
            await client.complete_with_tools(asked(lying), MODELS[protocol][0], max_tokens=20)
    finally:
        await client.close()

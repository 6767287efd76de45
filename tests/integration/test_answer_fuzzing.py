"""Recorded answers with fields dropped, emptied, moved and of other types, read by the clients.

Whatever a server sends, only an AgentError leaves a client, a failure never becomes a success, and
the cost never falls below the counts of the answer itself.
"""

import copy
import random
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest

from app.domain.usage import Usage
from app.errors import ProviderError
from app.llm.base import LLMClient
from tests.support.answers import Recorded, answering, corpus
from tests.support.llm_clients import client_of

pytestmark = pytest.mark.anyio

ROUNDS = 4
MOST_CHANGES = 3
#: Fields that say that an answer is a failure. Without them nobody could know.
EVIDENCE = frozenset({"error", "finish_reason", "stop_reason", "status", "incomplete_details"}) | {
    "object",
    "type",
    "code",
    "refusal",
    "choices",
    "delta",
    "message",
    "index",
    "response",
}
OTHER_VALUES: tuple[Any, ...] = (None, "", "x", 0, -1, 1.5, 10**30, True, [], {}, ["x"], {"x": 1})
WAYS = ("drop", "other", "shuffle", "double")
SHARE_OF_EVENTS = 0.1
_NAME = {True: "body", False: "data"}
SHAPES: dict[str, Mapping[str, Any]] = {}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def clients(anyio_backend: str) -> AsyncIterator[dict[str, LLMClient]]:
    async with answering(SHAPES) as url:
        protocols = {recorded.protocol for recorded in corpus()}
        made = {protocol: client_of(protocol, url) for protocol in protocols}
        yield made
        for client in made.values():
            await client.close()


def changed(recorded: Recorded, chance: random.Random) -> dict[str, Any]:
    """A copy of an answer with some fields changed; what makes a failure one stays."""
    shape = copy.deepcopy(dict(recorded.shape))
    fails = "error" in recorded.expect
    for _ in range(chance.randint(1, MOST_CHANGES)):
        events = shape.get("events")
        roots = [shape] if events is None else events
        holders = [
            root for root in roots if isinstance(root.get(_NAME[events is None]), dict | list)
        ]
        places = [
            (parent, key)
            for holder in holders
            for parent, key in _places(holder[_NAME[events is None]])
            if not (fails and (key in EVIDENCE or isinstance(parent, list)))
        ]
        if events and not fails and chance.random() < SHARE_OF_EVENTS:
            _change(shape, "events", chance, ways=("shuffle",))
            _change(events, chance.randrange(len(events)), chance, ways=("drop", "double"))
        elif places:
            _change(*chance.choice(places), chance)
    return shape


def _places(part: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(part) if isinstance(part, dict) else range(len(part))
    for key in keys:
        yield part, key
        if isinstance(part[key], dict | list):
            yield from _places(part[key])


def _change(parent: Any, key: Any, chance: random.Random, *, ways: Sequence[str] = WAYS) -> None:
    match chance.choice(ways):
        case "drop":
            del parent[key]
        case "other":
            parent[key] = chance.choice(OTHER_VALUES)
        case "shuffle" if isinstance(parent[key], list):
            chance.shuffle(parent[key])
        case "shuffle" if isinstance(parent[key], dict):
            items = list(parent[key].items())
            chance.shuffle(items)
            parent[key] = dict(items)
        case "double" if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))


def own_counts(recorded: Recorded, shape: Mapping[str, Any]) -> tuple[int, int]:
    """The largest counts of prompt and output that an answer reports where its protocol says."""
    events = [event.get("data") for event in shape.get("events", ()) if isinstance(event, dict)]
    documents = events if "events" in shape else [shape["body"]]
    usages = [usage for document in documents for usage in _usages(document)]
    names = ("prompt_tokens", "completion_tokens")
    if recorded.protocol != "openai":
        names = ("input_tokens", "output_tokens")
    prompt, output = (
        max([_count(usage.get(name)) for usage in usages], default=0) for name in names
    )
    return prompt, output


def _usages(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        for holder in (document, document.get("message"), document.get("response")):
            if isinstance(holder, dict) and isinstance(usage := holder.get("usage"), dict):
                yield usage


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= 10**9 and value == int(value) else 0


FUZZED = [recorded for recorded in corpus() if "text" not in recorded.shape]


@pytest.mark.parametrize("recorded", FUZZED, ids=lambda recorded: recorded.name)
async def test_no_change_of_an_answer_makes_a_success_of_a_failure_or_lowers_its_cost(
    clients: dict[str, LLMClient], recorded: Recorded
) -> None:
    chance = random.Random(zlib.crc32(recorded.name.encode()))
    client = clients[recorded.protocol]
    for _ in range(ROUNDS):
        shape = changed(recorded, chance)
        SHAPES[recorded.name] = shape
        usage: Usage | None = None
        try:
            response = await client.complete(
                recorded.prompt,
                recorded.shape["request"]["model"],
                max_tokens=recorded.shape["request"].get("max_tokens"),
                stream=recorded.streamed,
                timeout_s=20,
            )
        except ProviderError as error:
            free = (error.status or 0) >= 400
            came = error.partial
            usage = came.usage if came else None
            if (usage is None and not free) or (came and recorded.streamed and not came.final):
                continue  # booked at the worst case, or by what came before the stream broke off
            usage = usage or Usage()
        else:
            assert "error" not in recorded.expect, (shape, response)
            usage = response.usage
        if recorded.shape.get("status", 200) == 200:
            prompt, output = own_counts(recorded, shape)
            assert usage.prompt_tokens >= prompt, shape
            assert usage.output_tokens >= output, shape

"""Programs that run at the provider, through the real SDKs: recorded answers, and the simulator."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pytest

from app.domain.protocols import PROTOCOLS
from app.errors import BadRequest, ProviderError
from app.llm.base import LLMResponse, Message
from app.llm.parts import part_of
from app.simulator import Simulator
from tests.support.answers import Recorded, corpus
from tests.support.answers import answering as serve
from tests.support.ledgers import dollars_of
from tests.support.llm_clients import PROTOCOL_OF, client_of
from tests.support.media import png
from tests.support.tool_answers import answering, ask, recorded

pytestmark = pytest.mark.anyio

PROGRAM = {"server": "code_execution"}
OWN = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}}
QUESTION: Message = {"role": "user", "content": "What is 3 * 12390?"}
AND: Message = {"role": "user", "content": "And 4 * 12390?"}
IDLE_S = {"anthropic": 300, "responses": 1200}
MODELS = {"anthropic": "claude-haiku-4-5", "responses": "gpt-6.1-terra"}
FORMS = tuple(MODELS)
WITH_PROGRAMS = [one for one in corpus() if "containers" in one.expect]


def records_of(sim: Simulator) -> list[dict[str, Any]]:
    return [asdict(record) for record in sim.ledger()]


async def converse(
    form: str,
    url: str,
    messages: Sequence[Message] = (QUESTION,),
    *,
    tools: Sequence[Mapping[str, Any]] = (PROGRAM,),
    stream: bool = False,
    model: str | None = None,
) -> LLMResponse:
    client = client_of(form, url)
    try:
        return await client.complete_with_tools(
            messages, model or MODELS[form], tools, max_tokens=500, stream=stream
        )
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("claude-sonnet-5", "code_execution_20260521"),
        ("claude-haiku-4-5", "code_execution_20250825"),
    ],
)
async def test_anthropic_gets_the_tool_without_parameters(model: str, kind: str) -> None:
    async with answering(recorded("anthropic/bash_code_execution_container")) as (url, requests):
        await ask("anthropic", url, model, [OWN, PROGRAM])

    assert requests[0]["tools"][1] == {"type": kind, "name": "code_execution"}
    assert "container" not in requests[0]


@pytest.mark.parametrize(("model", "sealed"), [("gpt-4o", False), ("gpt-5", True)])
async def test_openai_gets_the_size_of_the_container_and_the_limit(
    model: str, sealed: bool
) -> None:
    tool = {**PROGRAM, "memory": "4g", "max_uses": 3}

    async with answering(recorded("responses/azure_code_interpreter")) as (url, requests):
        await ask("openai", url, model, [OWN, tool])
        requests.clear()
        await ask("openai", url, model, [PROGRAM, {"server": "web_search", "max_uses": 4}])

    program, _ = requests[0]["tools"]
    assert program == {"type": "code_interpreter", "container": {"type": "auto"}}
    assert requests[0]["max_tool_calls"] == 6
    assert ("reasoning.encrypted_content" in requests[0]["include"]) == sealed
    assert "code_interpreter_call.outputs" in requests[0]["include"]


async def test_the_memory_of_a_container_is_sent_and_counted() -> None:
    body = recorded("responses/azure_code_interpreter")

    async with answering(body, body) as (url, requests):
        small = await ask("responses", url, "gpt-5", [PROGRAM])
        large = await ask("responses", url, "gpt-5", [{**PROGRAM, "memory": "16g"}])

    assert requests[1]["tools"][0]["container"] == {"type": "auto", "memory_limit": "16g"}
    assert large.usage.container_seconds == 16 * small.usage.container_seconds > 0


@pytest.mark.parametrize("one", WITH_PROGRAMS, ids=lambda one: one.name)
async def test_recorded_answers_are_booked_with_the_longest_time_of_their_containers(
    one: Recorded,
) -> None:
    rules = PROTOCOLS[PROTOCOL_OF[one.protocol]].containers

    async with serve({one.name: one.shape}) as url:
        client = client_of(one.protocol, url)
        response = await client.complete(
            one.prompt, one.shape["request"]["model"], tools=[PROGRAM], stream=one.streamed
        )
        await client.close()

    shown = one.expect["containers"]
    containers = rules.count(shown, ran=shown > 0)
    assert one.usage is not None
    assert response.usage.prompt_tokens == one.usage.prompt_tokens
    # The recorded call takes less than a minute here.
    assert response.usage.container_seconds == rules.seconds(1.0, containers)
    kept = (response.metadata.get("original") or {}).get("container")
    assert (kept is not None) == (shown > 0)
    if kept is not None:
        assert time.time() < kept["until_s"] <= time.time() + rules.kept_s
    assert "data:image" not in json.dumps(response.metadata.get("original"))


async def test_containers_are_free_beside_the_newest_web_tools() -> None:
    body = recorded("anthropic/bash_code_execution_container")
    search = {"server": "web_search", "max_uses": 1}

    async with answering(body, body) as (url, requests):
        newest = await ask("anthropic", url, "claude-sonnet-5", [PROGRAM, search])
        older = await ask("anthropic", url, "claude-haiku-4-5", [PROGRAM, search])

    assert requests[0]["tools"][1]["allowed_callers"] == ["direct"]
    assert newest.usage.container_seconds == 0
    assert older.usage.container_seconds == 360


async def test_anthropic_bills_no_container_if_no_program_ran() -> None:
    async with answering(recorded("anthropic/text_only_input_and_output_counts")) as (url, _):
        response = await ask("anthropic", url, "claude-haiku-4-5", [PROGRAM])

    assert response.usage.container_seconds == 0


async def test_files_may_be_put_into_a_container_before_any_program_runs() -> None:
    image = part_of(png(9, 9))
    asked: Message = {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}

    async with answering(recorded("anthropic/text_only_input_and_output_counts")) as (url, _):
        response = await ask("anthropic", url, "claude-haiku-4-5", [PROGRAM], [asked])

    assert response.usage.container_seconds == 360


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("form", FORMS)
async def test_the_container_goes_back_with_the_next_call(
    sim: Simulator, form: str, stream: bool
) -> None:
    first = await converse(form, sim.anthropic_base_url, stream=stream)
    history = [QUESTION, json.loads(json.dumps(first.as_message())), AND]
    second = await converse(form, sim.anthropic_base_url, history, stream=stream)

    one, two = records_of(sim)
    assert one["container"] == two["container"] is not None
    for record, response in ((one, first), (two, second)):
        assert record["status"] == 200
        assert response.usage.container_seconds >= record["container_seconds"] > 0
        assert response.usage.prompt_tokens == record["input_tokens"]
    assert first.usage.container_seconds == one["container_seconds"] == IDLE_S[form] + 60
    # The idle time that the first call has paid for is not billed twice.
    assert two["container_seconds"] == 300


@pytest.mark.parametrize("form", FORMS)
async def test_a_container_never_goes_to_another_provider(sim: Simulator, form: str) -> None:
    other = next(one for one in FORMS if one != form)

    first = await converse(form, sim.anthropic_base_url)
    history = [QUESTION, first.as_message(), AND]
    second = await converse(other, sim.anthropic_base_url, history)

    one, two = records_of(sim)
    assert one["container"] != two["container"]
    assert second.content


@pytest.mark.parametrize("form", FORMS)
async def test_a_container_that_may_have_expired_is_not_asked_for_again(
    sim: Simulator, form: str
) -> None:
    first = dict((await converse(form, sim.anthropic_base_url)).as_message())
    gone = {"id": "cntr_gone", "until_s": time.time() - 1}
    text = json.dumps(first["original"]).replace(first["original"]["container"]["id"], "cntr_gone")
    first["original"] = json.loads(text) | {"container": gone}

    second = await converse(form, sim.anthropic_base_url, [QUESTION, first, AND])
    kept = {**first, "original": {**first["original"], "container": gone | {"until_s": 10**11}}}
    with pytest.raises(BadRequest, match="not found"):
        await converse(form, sim.anthropic_base_url, [QUESTION, kept, AND])

    assert second.content
    assert records_of(sim)[1]["container"] not in (None, "cntr_gone")


@pytest.mark.parametrize("form", FORMS)
async def test_no_program_means_no_fee_only_where_the_provider_says_so(
    sim: Simulator, form: str
) -> None:
    prompt = "Say hello. [[sim:programs=0]]"

    response = await converse(form, sim.anthropic_base_url, [{"role": "user", "content": prompt}])

    (record,) = records_of(sim)
    assert response.usage.container_seconds == record["container_seconds"]
    assert bool(record["container_seconds"]) == (form == "responses")


async def test_a_pause_keeps_the_container(sim: Simulator) -> None:
    asked: Message = {"role": "user", "content": "Compute. [[sim:programs=3,pauses=1]]"}

    first = await converse("anthropic", sim.anthropic_base_url, [asked])
    second = await converse("anthropic", sim.anthropic_base_url, [asked, first.as_message()])

    assert (first.finish_reason, second.finish_reason) == ("pause", "stop")
    one, two = records_of(sim)
    assert one["container"] == two["container"] is not None


@pytest.mark.parametrize("form", FORMS)
async def test_the_uses_of_programs_are_limited_as_the_hold_says(sim: Simulator, form: str) -> None:
    asked: Message = {"role": "user", "content": "Compute. [[sim:programs=50,searches=50]]"}
    limited = {**PROGRAM, "max_uses": 2} if form == "responses" else PROGRAM

    response = await converse(
        form,
        sim.anthropic_base_url,
        [asked],
        tools=[limited, {"server": "web_search", "max_uses": 3}],
    )

    shown = json.dumps(response.metadata["original"])
    programs = shown.count("code_interpreter_call") or shown.count("bash_code_execution_result")
    if form == "responses":
        assert programs + response.usage.web_searches == 5
    else:
        assert (programs, response.usage.web_searches) == (10, 3)


@pytest.mark.parametrize("form", FORMS)
async def test_a_stream_that_breaks_off_counts_the_most_containers(
    sim: Simulator, form: str
) -> None:
    asked: Message = {"role": "user", "content": "Compute. [[sim:cut_stream]]"}

    with pytest.raises(ProviderError) as failed:
        await converse(form, sim.anthropic_base_url, [asked], stream=True)

    (record,) = records_of(sim)
    assert failed.value.partial is not None
    assert failed.value.partial.usage.container_seconds >= record["container_seconds"] > 0


@pytest.mark.parametrize("form", FORMS)
async def test_a_long_call_is_booked_for_its_whole_time(sim: Simulator, form: str) -> None:
    # The whole minute is over before the idle time begins.
    asked: Message = {"role": "user", "content": "Compute. [[sim:latency=0.5]]"}

    response = await converse(form, sim.anthropic_base_url, [asked])

    (record,) = records_of(sim)
    assert record["seconds"] >= 0.5
    assert response.usage.container_seconds >= record["container_seconds"]
    assert dollars_of(record) > 0

"""Prompts and answers that a provider's filter has blocked, read through the real SDKs.

A refusal in a 200 is an answer that ends with ``content_filter`` and costs what it counts; an error
that is a refusal is a BadRequest. Neither of them is tried again.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from app.domain.usage import Usage
from app.errors import BadRequest, RateLimited, ServerFailure
from app.llm.base import LLMResponse
from tests.support.llm_clients import FORMS, client_of
from tests.support.wire_server import provider_server

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "responses": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6"}
COUNTS = {"prompt_tokens": 20, "completion_tokens": 0, "total_tokens": 20}
BLOCKED = {"hate": {"filtered": True, "severity": "high"}, "violence": {"filtered": False}}
FOUND = {"hate": {"filtered": False}, "protected_material_code": {"detected": True}}
VERDICTS: dict[str, dict[str, Any]] = {
    "google": {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}},
    "google, other names": {"prompt_feedback": {"block_reason": "SAFETY", "safety_ratings": []}},
    "azure": {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": BLOCKED}]},
    "azure, old": {"prompt_annotations": [{"content_filter_results": BLOCKED}]},
}
EMPTY: dict[str, dict[str, Any]] = {
    "no choices": {},
    "null": {"choices": None},
    "empty list": {"choices": []},
    "empty choice": {"choices": [{"index": 0, "message": {"content": None}, "delta": {}}]},
    "stop": {"choices": [{"message": {"content": ""}, "delta": {}, "finish_reason": "stop"}]},
}
POLICY = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": BLOCKED}


async def read(
    answer: Any, *, form: str = "openai", status: int = 200, model: str = ""
) -> LLMResponse:
    """Read a whole answer, or the events of a stream if the answer is a list."""
    stream = isinstance(answer, list)
    parts = answer if stream else [answer]
    texts = (part if isinstance(part, str) else json.dumps(part) for part in parts)
    content = "".join(f"data: {text}\n\n" if stream else text for text in texts)
    kind = "text/event-stream" if stream else "application/json"

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=content, status=status, content_type=kind)

    async with provider_server(handle) as url:
        client = client_of(form, url)
        try:
            return await client.complete(
                "Hello.", model or MODELS[form], stream=stream, max_tokens=500
            )
        finally:
            await client.close()


@pytest.mark.parametrize("choices", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("verdict", VERDICTS.values(), ids=VERDICTS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_blocked_prompt_is_a_refusal_that_costs_its_prompt(
    verdict: Mapping[str, Any], choices: Mapping[str, Any], streamed: bool
) -> None:
    answer: Any = {**choices, **verdict, "usage": COUNTS}

    response = await read([answer, "[DONE]"] if streamed else answer)

    assert (response.content, response.finish_reason) == ("", "content_filter")
    assert "blocked the prompt" in response.metadata["refusal"]
    assert response.usage == Usage(input_tokens=20)
    assert "usage_missing" not in response.metadata


@pytest.mark.parametrize("verdict", VERDICTS.values(), ids=VERDICTS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_blocked_prompt_without_a_count_is_estimated_and_has_no_output(
    verdict: Mapping[str, Any], streamed: bool
) -> None:
    answer: Any = {"choices": [], **verdict}

    response = await read([answer] if streamed else answer, model="gemini-2.5-pro")

    assert response.finish_reason == "content_filter"
    assert response.metadata["usage_missing"]
    assert (response.input_tokens > 0, response.output_tokens) == (True, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_count_in_googles_own_form_is_one(streamed: bool) -> None:
    counts = {"promptTokenCount": 20, "totalTokenCount": 20}
    answer: Any = {**VERDICTS["google"], "usageMetadata": counts}

    response = await read([answer] if streamed else answer)

    assert response.finish_reason == "content_filter"
    assert response.usage == Usage(input_tokens=20)


@pytest.mark.parametrize(
    "verdict",
    [
        *VERDICTS.values(),
        {"promptFeedback": {"safetyRatings": []}},
        {"promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}},
        {"promptFeedback": ["x"], "prompt_filter_results": "x"},
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_verdict_on_the_prompt_beside_an_answer_is_only_a_remark(
    verdict: Mapping[str, Any], streamed: bool
) -> None:
    name = "delta" if streamed else "message"
    choice = {"index": 0, name: {"content": "hi"}, "finish_reason": "stop"}
    answer: Any = {"choices": [choice], **verdict}

    response = await read([answer, "[DONE]"] if streamed else answer)

    assert (response.content, response.finish_reason) == ("hi", "stop")


@pytest.mark.parametrize(
    "verdict",
    [
        {"promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}},
        {"prompt_filter_results": [{"content_filter_results": FOUND}]},
    ],
)
async def test_without_a_block_an_answer_without_a_message_is_a_failure(
    verdict: Mapping[str, Any],
) -> None:
    with pytest.raises(ServerFailure):
        await read({"choices": [], **verdict})


async def test_an_error_beside_a_verdict_keeps_its_class() -> None:
    with pytest.raises(RateLimited):
        await read({**VERDICTS["google"], "error": {"code": 429, "message": "slow down"}})


@pytest.mark.parametrize("word", ["stop", "content_filter", None])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_a_filter_has_blocked_is_a_refusal(
    word: str | None, streamed: bool
) -> None:
    verdict = {"index": 0, "content_filter_results": BLOCKED, "finish_reason": word}
    answer: Any = {"choices": [{**verdict, "message": {"content": "half"}}]}
    if streamed:
        text = {"choices": [{"index": 0, "delta": {"content": "half"}}]}
        answer = [text, {"choices": [verdict]}, "[DONE]"]

    response = await read(answer)

    assert (response.content, response.finish_reason) == ("half", "content_filter")
    assert response.metadata["refusal"] == "the provider's filter blocked the answer: hate"


@pytest.mark.parametrize(
    "results",
    [
        {"content_filter_results": FOUND},
        {"content_filter_result": {"error": {"code": "content_filter_error"}}},
        {"content_filter_results": {"custom_blocklists": []}},
        {"content_filter_results": None},
    ],
)
async def test_what_a_filter_has_only_found_is_no_refusal(results: Mapping[str, Any]) -> None:
    choice = {"message": {"content": "hi"}, "finish_reason": "stop", **results}

    assert (await read({"choices": [choice]})).finish_reason == "stop"


@pytest.mark.parametrize("source", ["prompt", "completion"])
@pytest.mark.parametrize("status", ["completed", "incomplete"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_that_a_filter_has_blocked_is_a_refusal(
    source: str, status: str, streamed: bool
) -> None:
    blocked = {"blocked": True, "source_type": source, "content_filter_results": BLOCKED}
    counts = {"input_tokens": 20, "output_tokens": 0}
    answer: Any = {"status": status, "content_filters": [blocked], "output": [], "usage": counts}

    response = await read(
        [{"type": f"response.{status}", "response": answer}] if streamed else answer,
        form="responses",
    )

    assert (response.content, response.finish_reason) == ("", "content_filter")
    assert response.usage == Usage(input_tokens=20)


@pytest.mark.parametrize("name", ["innererror", "inner_error"])
@pytest.mark.parametrize("status", [200, 400, 403, 500, 502])
@pytest.mark.parametrize("form", FORMS)
async def test_a_policy_inside_an_error_is_a_bad_request_with_any_status(
    form: str, status: int, name: str
) -> None:
    body = {"error": {"message": "The response was filtered", "code": None, name: POLICY}}

    with pytest.raises(BadRequest, match="filtered") as failed:
        await read(body, form=form, status=status)

    assert failed.value.partial is None
    assert failed.value.code == "ResponsibleAIPolicyViolation"


@pytest.mark.parametrize(
    "code",
    [
        *("content_filter", "content_policy_violation", "data_inspection_failed", "1301"),
        "SensitiveContentDetected.SevereViolation",
    ],
)
@pytest.mark.parametrize("form", FORMS)
async def test_a_policy_in_a_stream_is_a_bad_request(form: str, code: str) -> None:
    with pytest.raises(BadRequest):
        await read([{"error": {"message": "no", "code": code}}], form=form)

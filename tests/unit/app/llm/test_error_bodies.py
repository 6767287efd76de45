"""Errors in the forms of many servers: told from answers, and read."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFailure,
)
from app.llm.errors import from_answer, from_exception, reports_failure
from tests.support.answers import Recorded, corpus

CHOICE = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
# Document, class, code, and a part of the message.
ERRORS: list[tuple[Any, type[ProviderError], str | None, str]] = [
    (
        {"code": "InternalError", "message": "boom", "choices": []},
        ServerFailure,
        "InternalError",
        "boom",
    ),
    (
        {"code": "Throttling.RateQuota", "message": "slower", "choices": None},
        RateLimited,
        "Throttling.RateQuota",
        "slower",
    ),
    ({"object": "error", "message": "boom", "code": 500}, ServerFailure, "500", "boom"),
    ({"message": "Internal", "code": 500}, ServerFailure, "500", "Internal"),
    ({"success": False, "message": "boom"}, ServerFailure, None, "boom"),
    ({"success": False}, ServerFailure, None, "success"),
    ({"detail": "Rate limit"}, RateLimited, None, "Rate limit"),
    ({"detail": [{"loc": ["body"], "msg": "field required"}]}, ServerFailure, None, "field req"),
    ({"detail": {"error": {"message": "no", "code": 401}}}, AuthenticationFailed, "401", "no"),
    ({"error_code": 18, "error_msg": "qps limit"}, RateLimited, "18", "qps limit"),
    ({"error_code": 17, "error_msg": "daily limit"}, QuotaExhausted, "17", "daily limit"),
    ({"error_code": 336100, "error_msg": "try later"}, Overloaded, "336100", "try later"),
    (
        {"errors": [{"code": 7003, "message": "no route"}], "success": False, "result": None},
        ServerFailure,
        "7003",
        "no route",
    ),
    ({"errors": ["no route"]}, ServerFailure, None, "no route"),
    ({"statusCode": 429, "message": "slower"}, RateLimited, "429", "slower"),
    (
        {"__type": "ThrottlingException", "message": "slower"},
        RateLimited,
        "ThrottlingException",
        "slower",
    ),
    (
        {"__type": "com.amazon.coral#AccessDeniedException", "Message": "no"},
        AuthenticationFailed,
        "AccessDeniedException",
        "no",
    ),
    ({"message": "The model returned an error"}, ServerFailure, None, "The model returned"),
    (
        [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slower"}}],
        RateLimited,
        "429",
        "slower",
    ),
    ({"type": "error", "message": "boom"}, ServerFailure, None, "boom"),
    ({"type": "invalid_request_error", "message": "bad"}, BadRequest, "invalid_request_error", "b"),
    ({"error": True, "message": "Too many requests"}, RateLimited, None, ": Too many requests"),
    (
        {"error": "rate_limit_exceeded", "message": "slower"},
        RateLimited,
        "rate_limit_exceeded",
        "s",
    ),
    ({"error": {"error": {"code": 402}}}, QuotaExhausted, "402", "402"),
    ({"error": [{"code": 503, "message": "full"}]}, Overloaded, "503", "full"),
    ({"error": {"code": 429.0, "message": "slower"}}, RateLimited, "429", "slower"),
    ({"error": {"message": "boom"}, "choices": [CHOICE]}, ServerFailure, None, "boom"),
    ({"error": "boom", "type": "ping"}, ServerFailure, None, "boom"),
    ({"error": "insufficient credits"}, QuotaExhausted, None, "insufficient credits"),
]
ORDINARY: list[Any] = [
    {"choices": [CHOICE]},
    {"choices": [CHOICE], "error": None, "code": 200, "message": "success"},
    {"choices": [CHOICE], "code": "x", "message": "y", "detail": "z", "success": False},
    {"choices": [], "usage": {"prompt_tokens": 1}},
    {"choices": [], "prompt_filter_results": []},
    {"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
    {"choices": [], "code": 0, "message": "success"},
    {"code": 200, "message": "OK", "success": True, "errors": []},
    {"type": "message", "content": [], "stop_reason": "end_turn"},
    {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "error"}},
    {"type": "ping"},
    {"type": "notice", "message": "a server of its own kind", "status": "queued"},
    {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "no"}}},
    {"type": "response.code_interpreter_call_code.done", "code": "1/0", "message": "text"},
    {"object": "response", "status": "in_progress", "output": [], "error": None},
    {},
    [],
    None,
    "error",
]
VOID_ERRORS: list[Any] = [
    {"code": 0, "message": ""},
    {"code": None, "message": None, "type": None, "param": None},
    {"code": 0, "message": " ", "metadata": {"raw": None, "headers": {}}},
    {},
    [],
    [{}],
    "",
    None,
    False,
]
NAMES = (
    "error errors message detail code type base_resp status_code choices details metadata headers "
    "retry_after retryDelay error_code"
).split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(NAMES), part, max_size=4)
    ),
    max_leaves=12,
)


def read(body: Any, status: int = 200) -> ProviderError:
    return from_answer(provider="p", status=status, headers={}, body=body)


@pytest.mark.parametrize(("document", "kind", "code", "text"), ERRORS)
def test_an_error_inside_a_200_is_told_in_every_form(
    document: Any, kind: type[ProviderError], code: str | None, text: str
) -> None:
    error = read(document)

    assert reports_failure(document)
    assert type(error) is kind
    assert error.code == code
    assert text in str(error)
    assert (error.status or 0) >= 400


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1000, ServerFailure),
        (1001, ConnectionFailed),
        (1002, RateLimited),
        (1004, AuthenticationFailed),
        (1008, QuotaExhausted),
        (1013, ServerFailure),
        (1024, ServerFailure),
        (1027, BadRequest),
        (1033, ServerFailure),
        (2013, BadRequest),
        (9999, ServerFailure),
    ],
)
@pytest.mark.parametrize("choices", [[], None, [CHOICE]])
def test_a_base_resp_of_minimax_is_a_failure_beside_choices_too(
    number: int, kind: type[ProviderError], choices: Any
) -> None:
    document = {"choices": choices, "base_resp": {"status_code": number, "status_msg": "no way"}}

    error = read(document)

    assert reports_failure(document)
    assert (type(error), error.code) == (kind, str(number))
    assert str(error).endswith(": no way")


@pytest.mark.parametrize("document", ORDINARY)
def test_an_ordinary_document_is_no_error(document: Any) -> None:
    assert not reports_failure(document)


@pytest.mark.parametrize("void", VOID_ERRORS)
@pytest.mark.parametrize("document", [item for item in ORDINARY if isinstance(item, dict)])
def test_an_error_without_content_is_no_error(document: dict[str, Any], void: Any) -> None:
    assert not reports_failure({**document, "error": void})


def documents(recorded: Recorded) -> Iterator[Any]:
    if "events" in recorded.shape:
        yield from (event["data"] for event in recorded.shape["events"] if "data" in event)
    elif "body" in recorded.shape:
        yield recorded.shape["body"]


@pytest.mark.parametrize(
    "recorded",
    [recorded for recorded in corpus() if "error" not in recorded.expect],
    ids=lambda recorded: recorded.name,
)
def test_no_part_of_a_recorded_success_is_an_error(recorded: Recorded) -> None:
    assert not [document for document in documents(recorded) if reports_failure(document)]


def test_every_recorded_body_of_an_error_is_one() -> None:
    bodies = {
        recorded.name: recorded.shape["body"]
        for recorded in corpus()
        if "error" in recorded.expect and recorded.shape.get("status", 200) >= 400
        if isinstance(recorded.shape.get("body"), dict | list)
    }

    assert len(bodies) > 50
    assert not [name for name, body in bodies.items() if body and not reports_failure(body)]


@given(JSON, st.sampled_from([200, 400, 429, 500]))
def test_any_document_can_be_read(document: Any, status: int) -> None:
    error = read(document, status)

    assert isinstance(reports_failure(document), bool)
    assert (error.status or 0) >= 400
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # Texts that repeat the words of the request say nothing of the account.
        (400, "Invalid schema for function 'list_overdue_invoices'", BadRequest),
        (400, "Invalid schema for function 'insufficient_funds'", BadRequest),
        (400, "tools.0.name: 'out of credits' should match a pattern", BadRequest),
        (422, "input: 'our credit balance is too low' is no image", BadRequest),
        (500, "cannot render 'insufficient balance'", ServerFailure),
        (200, {"type": "invalid_request_error", "message": "'out of credits': bad"}, BadRequest),
        (
            429,
            {"code": "rate_limit_exceeded", "message": "insufficient quota for tokens per minute"},
            RateLimited,
        ),
        (429, "insufficient quota (TPM)", RateLimited),
        # The account is used up.
        (400, "Your credit balance is too low to access the Anthropic API.", QuotaExhausted),
        (200, "insufficient credits", QuotaExhausted),
        (200, {"type": "api_error", "message": "insufficient balance (1008)"}, QuotaExhausted),
        (500, {"type": "api_error", "message": "insufficient balance (1008)"}, QuotaExhausted),
        (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, None),
        (429, "You have exceeded your monthly included credits for Inference Providers", None),
        (429, {"type": "credit_limit", "message": "Credit limit exceeded"}, None),
        (
            412,
            "Account a-1 is suspended, possibly due to the monthly spending limit",
            None,
        ),
        (412, "Account is suspended: monthly spending limit", None),
        (400, {"type": "budget_exceeded", "message": "Budget has been exceeded!"}, None),
        (429, {"code": "budget_exceeded", "message": "Budget has been exceeded!"}, None),
        (400, "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0", None),
        (429, "Monthly token limit exceeded", None),
        (403, {"code": "AccountOverdueError", "message": "an overdue balance"}, None),
        (403, "Your account has an overdue balance", None),
    ],
)
def test_words_tell_a_used_up_account_only_where_they_can(
    status: int, body: Any, kind: type[ProviderError] | None
) -> None:
    error = read({"error": body}, status)

    assert type(error) is (kind or QuotaExhausted)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("decoded", [True, False])
def test_a_byte_order_mark_hides_no_code(mark: bytes, *, decoded: bool) -> None:
    body = mark + b'{"error": {"code": "insufficient_quota", "message": "pay"}}'

    error = read(body.decode() if decoded else body, 429)

    assert (type(error), error.code) == (QuotaExhausted, "insufficient_quota")


def test_what_stands_beside_the_error_is_read_from_the_response() -> None:
    body = {"error": True, "message": "boom", "code": "insufficient_credits"}
    response = httpx2.Response(
        429, request=httpx2.Request("POST", "https://api.example.org"), json=body
    )
    error = openai.APIStatusError("Error code", response=response, body=body["error"])

    mapped = from_exception(error, provider="p")

    assert type(mapped) is QuotaExhausted
    assert str(mapped) == "p answered 429 (insufficient_credits): boom"


@pytest.mark.parametrize("words", ["limit: 1,", "a ", "reached your ", " ", "sk-"])
def test_an_error_of_any_length_is_read_in_no_time(words: str) -> None:
    started_s = time.thread_time()

    failure = from_answer(provider="p", status=429, headers={}, body=words * 500_000)

    assert isinstance(failure, RateLimited)
    assert time.thread_time() - started_s < 0.25


def test_a_limit_with_thousands_of_digits_is_no_number() -> None:
    digits = "1" * 5000
    body = {"error": {"message": f"Limit: {digits}, requested: {digits}"}}

    assert isinstance(from_answer(provider="p", status=429, headers={}, body=body), RateLimited)

import inspect
from types import ModuleType
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import pytest

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
from app.llm.errors import BY_CLASS, from_answer, from_exception

REQUEST = httpx2.Request("POST", "https://api.example.org/v1")
BY_STATUS = {
    300: ServerFailure,
    400: BadRequest,
    401: AuthenticationFailed,
    402: QuotaExhausted,
    403: AuthenticationFailed,
    404: BadRequest,
    405: BadRequest,
    408: ConnectionFailed,
    409: ServerFailure,
    412: BadRequest,
    413: BadRequest,
    422: BadRequest,
    429: RateLimited,
    431: BadRequest,
    499: ConnectionFailed,
    500: ServerFailure,
    501: ServerFailure,
    502: ServerFailure,
    503: Overloaded,
    504: ServerFailure,
    520: ServerFailure,
    529: Overloaded,
}


def exceptions_of(sdk: ModuleType) -> set[type[Exception]]:
    """Every exception class that an SDK exports, or has in its module of them."""
    # By getattr, because the SDKs load their exports at the first access.
    names = ((module, name) for module in (sdk, sdk._exceptions) for name in dir(module))
    values = [getattr(module, name) for module, name in names if not name.startswith("_")]
    return {value for value in values if inspect.isclass(value) and issubclass(value, Exception)}


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
def test_every_exception_class_of_the_sdks_is_mapped(sdk: Any) -> None:
    assert len(exceptions_of(sdk)) > 20
    unmapped = {
        cls.__name__
        for cls in exceptions_of(sdk)
        if not issubclass(cls, sdk.APIStatusError) and cls.__name__ not in BY_CLASS
    }

    assert not unmapped


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
def test_every_status_class_of_the_sdks_is_mapped_by_its_status(sdk: Any) -> None:
    statuses = {
        cls.__dict__.get("status_code")
        for cls in exceptions_of(sdk)
        if issubclass(cls, sdk.APIStatusError)
    } - {None}

    assert statuses <= BY_STATUS.keys()


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
@pytest.mark.parametrize(("status", "expected"), BY_STATUS.items())
def test_a_status_becomes_the_error_that_says_whether_to_retry(
    sdk: Any, status: int, expected: type[ProviderError]
) -> None:
    response = httpx2.Response(
        status, request=REQUEST, headers={"request-id": "req_1", "x-ratelimit-limit-tokens": "9"}
    )
    error = sdk.APIStatusError("Error code", response=response, body=None)

    mapped = from_exception(error, provider="sdk")

    assert type(mapped) is expected
    assert (mapped.status, mapped.request_id, mapped.provider) == (status, "req_1", "sdk")
    assert mapped.headers == {"x-ratelimit-limit-tokens": "9"}
    assert mapped.reached


@pytest.mark.parametrize(
    "error",
    [
        {"type": "insufficient_quota", "code": "insufficient_quota"},
        {"type": "insufficient_quota", "code": "credit_balance_exhausted"},
        {"type": "requests", "code": "organization_spend_limit_exceeded"},
        {"type": "requests", "code": "project_spend_limit_exceeded"},
        {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
        {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}},
    ],
)
def test_a_429_that_no_waiting_ends_is_not_retriable(error: dict[str, Any]) -> None:
    mapped = from_answer(provider="p", status=429, headers={}, body={"error": error})

    assert type(mapped) is QuotaExhausted
    assert not mapped.retriable


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "slow_down", "rate_limit_error", None])
def test_a_429_that_passes_is_retriable(code: str | None) -> None:
    body = {"error": {"type": "tokens", "code": code, "message": "slow down"}}

    mapped = from_answer(provider="p", status=429, headers={"retry-after": "7"}, body=body)

    assert type(mapped) is RateLimited
    assert mapped.retriable
    assert mapped.retry_after_s == 7
    assert mapped.code == (code or "tokens")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"code": "resource_unavailable", "type": "resource_unavailable"}),
        (429, {"type": "requests", "message": "429 Resource Unavailable: try again later"}),
        (429, {"message": "No capacity available for model m on the server"}),
        (429, {"code": "MODEL_CAPACITY_EXHAUSTED"}),
        (498, {"code": "capacity_exceeded"}),
    ],
)
def test_a_provider_without_capacity_is_overloaded_and_no_limit(
    status: int, error: dict[str, Any]
) -> None:
    mapped = from_answer(provider="p", status=status, headers={}, body={"error": error})

    assert type(mapped) is Overloaded
    assert mapped.retriable


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"type": "overloaded_error"}, Overloaded),
        ({"code": "server_is_overloaded", "type": "service_unavailable_error"}, Overloaded),
        ({"code": "invalid_prompt"}, BadRequest),
        ({"code": "server_error"}, ServerFailure),
        ({"type": "rate_limit_error"}, RateLimited),
        ({"type": "api_error"}, ServerFailure),
        ({"type": "billing_error"}, QuotaExhausted),
        ({"type": "invalid_request_error"}, BadRequest),
        ({"type": "authentication_error"}, AuthenticationFailed),
        ({"code": 429}, RateLimited),
        ({"code": "529"}, Overloaded),
        ({"code": "insufficient_quota"}, QuotaExhausted),
        ({"message": "?"}, ServerFailure),
        ("just a text", ServerFailure),
    ],
)
def test_an_error_inside_a_200_is_told_by_its_type(
    error: Any, expected: type[ProviderError]
) -> None:
    mapped = from_answer(provider="p", status=200, headers={}, body={"error": error})

    assert type(mapped) is expected


def test_an_error_event_of_a_stream_is_told_by_its_type() -> None:
    event = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    response = httpx2.Response(200, request=REQUEST)

    of_anthropic = anthropic.APIStatusError("Overloaded", response=response, body=event)
    of_openai = openai.APIError("cut", REQUEST, body={"code": "rate_limit_exceeded"})

    assert type(from_exception(of_anthropic, provider="anthropic")) is Overloaded
    assert type(from_exception(of_openai, provider="openai")) is RateLimited


def test_an_answer_of_the_wrong_shape_is_the_servers_failure() -> None:
    response = httpx2.Response(200, request=REQUEST, headers={"x-request-id": "req_9"})
    error = openai.APIResponseValidationError(response, {"choices": 5})

    mapped = from_exception(error, provider="openai")

    assert type(mapped) is ServerFailure
    assert mapped.request_id == "req_9"


def caused_by(error: Exception, *causes: Exception) -> Exception:
    link = error
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return error


def test_a_lost_connection_may_have_reached_the_provider() -> None:
    # This is how the SDKs' transport reports a server that hangs up after the request.
    lost = caused_by(
        openai.APITimeoutError(REQUEST),
        httpx2.ConnectTimeout("Server disconnected"),
        aiohttp.ServerDisconnectedError(),
    )
    lost_too = caused_by(
        anthropic.APIConnectionError(request=REQUEST),
        httpx2.ConnectError("Server disconnected"),
        aiohttp.ServerDisconnectedError(),
    )

    for error in (lost, lost_too, aiohttp.ClientPayloadError("cut"), OSError("reset")):
        mapped = from_exception(error, provider="p")

        assert type(mapped) is ConnectionFailed
        assert mapped.retriable
        assert mapped.reached
    assert "ServerDisconnectedError: Server disconnected" in str(from_exception(lost, provider="p"))


def test_a_connection_that_never_was_did_not_reach_the_provider() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)
    refused = aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "refused"))
    unknown_host = aiohttp.ClientConnectorDNSError(key, OSError("no such host"))

    for cause in (refused, unknown_host, aiohttp.ConnectionTimeoutError("to host")):
        error = caused_by(openai.APIConnectionError(request=REQUEST), cause)

        mapped = from_exception(error, provider="p")

        assert type(mapped) is ConnectionFailed
        assert not mapped.reached


def test_credentials_that_cannot_be_had_are_a_matter_of_authentication() -> None:
    error = anthropic.CredentialsError("no profile")

    assert type(from_exception(error, provider="anthropic")) is AuthenticationFailed


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: my-very-own-key-1234.",
        "Incorrect API key provided: sk-proj-abc***xyz.",
        "Authorization: Bearer some.token-1 is wrong",
        "x" * 495 + " my-very-own-key-1234",
    ],
)
def test_a_key_never_shows_in_a_message(text: str) -> None:
    mapped = from_answer(
        provider="openai",
        status=401,
        headers={},
        body={"error": {"message": text, "code": "invalid_api_key"}},
        api_key="my-very-own-key-1234",
    )

    assert not any(secret in str(mapped) for secret in ("my-very", "sk-proj", "some.token"))
    assert "[key]" in str(mapped) or str(mapped).endswith("...")


def test_a_placeholder_key_leaves_the_words_of_a_message_alone() -> None:
    body = {"error": "check the token"}

    mapped = from_answer(provider="p", status=400, headers={}, body=body, api_key="k")

    assert str(mapped) == "p answered 400: check the token"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>" + b"a" * 10_000, "..."),
        (b'{"detail": "Not\\nFound"}', "p answered 500: Not Found"),
        (b"\xff\xfe", "p answered 500: "),
        (b'{"object": "error", "message": "full", "code": 40303}', "p answered 500 (40303): full"),
        (None, "p answered 500: None"),
    ],
)
def test_any_body_makes_a_short_message_on_one_line(body: Any, text: str) -> None:
    message = str(from_answer(provider="p", status=500, headers={}, body=body))

    assert text in message
    assert len(message) < 600
    assert "\n" not in message


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (
            400,
            {"type": "invalid_request_error", "message": "Your credit balance is too low"},
            QuotaExhausted,
        ),
        (403, {"code": "insufficient_quota", "message": "no"}, QuotaExhausted),
        (429, {"type": "exceeded_current_quota_error", "message": "no"}, QuotaExhausted),
        (429, {"code": "1113", "message": "\u4f59\u989d\u4e0d\u8db3"}, QuotaExhausted),
        (400, {"code": "Arrearage", "message": "Access denied"}, QuotaExhausted),
        (
            429,
            {"message": "Request too large for gpt-4o: Limit 30000, Requested 50000"},
            BadRequest,
        ),
        (429, {"message": "Rate limit: Limit 30000, Used 20000, Requested 15000"}, RateLimited),
        (200, {"code": 429, "message": "busy"}, RateLimited),
        (200, {"code": "402", "message": "no"}, QuotaExhausted),
        (200, {"type": "overloaded_error", "message": "busy"}, Overloaded),
        (200, {"status": "UNAVAILABLE", "message": "busy"}, Overloaded),
        (200, {"message": "new"}, ServerFailure),
    ],
)
def test_what_an_error_says_decides_its_class(
    status: int, error: dict[str, Any], kind: type[ProviderError]
) -> None:
    mapped = from_answer(provider="p", status=status, headers={}, body={"error": error})

    assert type(mapped) is kind
    # By its status, the failure is booked as one that the provider itself reports: it is free.
    assert mapped.status is not None
    assert mapped.status >= 400

"""Converts errors of an SDK, of its transport or in an answer into the errors of ``app.errors``.

This module imports no SDK. It recognizes exceptions by the names of their classes, and a test fails
if the name of an SDK's exception is missing here.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import orjson

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
from app.llm.headers import limit_headers, request_id, retry_after_s

MAX_MESSAGE_CHARS = 500
MIN_SECRET_CHARS = 8

BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationFailed,
    402: QuotaExhausted,
    403: AuthenticationFailed,
    408: ConnectionFailed,
    409: ServerFailure,
    429: RateLimited,
    499: ConnectionFailed,
    503: Overloaded,
    529: Overloaded,
}
# Errors without a status of their own, which come in a 200 or as an event of a stream.
BY_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": AuthenticationFailed,
    "billing_error": QuotaExhausted,
    "bio_policy": BadRequest,
    "data_residency_mismatch": BadRequest,
    "invalid_prompt": BadRequest,
    "invalid_request_error": BadRequest,
    "misalignment_policy_violation": BadRequest,
    "not_found_error": BadRequest,
    "overloaded_error": Overloaded,
    "permission_error": AuthenticationFailed,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
    "request_too_large": BadRequest,
    "server_is_overloaded": Overloaded,
    "service_unavailable_error": Overloaded,
    "timeout_error": ConnectionFailed,
}
# Codes of 429s that do not end if the caller waits.
QUOTA_CODES = frozenset(
    {
        "billing_hard_limit_reached",
        "billing_not_active",
        "contract_spend_limit_reached",
        "credit_balance_exhausted",
        "enforced_spend_limit_reached",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
# Codes of 429s that are no limit of the account: the provider has no capacity left, such as for the
# tier "flex". OpenAI's page calls this answer "429 Resource Unavailable", Gemini's and Groq's names
# of it follow.
CAPACITY_CODES = frozenset(
    {"capacity_exceeded", "model_capacity_exhausted", "resource_unavailable"}
)
_CAPACITY_STATUSES = (429, 498)  # 498 is Groq's status for this
_NO_CAPACITY = re.compile(
    r"resource[ _]unavailable|no capacity|(?:not enough|insufficient) (?:capacity|resources)",
    re.IGNORECASE,
)
# Exceptions of the SDKs that carry no answer. The exceptions that carry an answer (APIStatusError
# and its subclasses) are recognized by the status of the answer.
BY_CLASS: dict[str, type[ProviderError]] = {
    "APIConnectionError": ConnectionFailed,
    "APIError": ServerFailure,
    "APIResponseValidationError": ServerFailure,
    "APITimeoutError": ConnectionFailed,
    "APIWebhookValidationError": ServerFailure,
    "AnthropicError": ServerFailure,
    "ContentFilterFinishReasonError": BadRequest,
    "CredentialsError": AuthenticationFailed,
    "IdentityTokenFileError": AuthenticationFailed,
    "InvalidWebhookSignatureError": ServerFailure,
    "LengthFinishReasonError": BadRequest,
    "OpenAIError": ServerFailure,
    "RetryableError": ServerFailure,
    "SubjectTokenProviderError": AuthenticationFailed,
    "WebSocketConnectionClosedError": ConnectionFailed,
    "WebSocketQueueFullError": ConnectionFailed,
    "WorkloadIdentityError": AuthenticationFailed,
}
_BAD_URL = frozenset({"InvalidURL", "UnsupportedProtocol"})
# Exceptions that prove that there was no connection, so the request was never sent. ConnectError
# and ConnectTimeout do not prove this, because the SDKs' transports also raise them for connections
# that were lost after the request.
_NEVER_SENT = _BAD_URL | {"ClientConnectorError", "ConnectionTimeoutError"}
_SECRET = re.compile(r"\b(?:sk|pk|key)-[\w*.-]{6,}|(?<=Bearer )\S+")


def from_exception(
    error: Exception, *, provider: str, api_key: str | None = None, came: str = "no answer"
) -> ProviderError:
    """Convert an exception of an SDK or of its transport into an error of ``app.errors``.

    Args:
        error: The exception.
        provider: Name of the provider that was called.
        api_key: The key of the call, which is removed from the message.
        came: The beginning of the message, which says whether an answer had begun.

    Returns:
        The error to raise.
    """
    response = getattr(error, "response", None)
    body = getattr(error, "body", None)
    if response is not None or isinstance(body, Mapping):
        return from_answer(
            status=HTTPStatus.OK if response is None else response.status_code,
            headers={} if response is None else response.headers,
            body=body if body is not None else getattr(error, "message", str(error)),
            provider=provider,
            api_key=api_key,
        )
    chain = list(_chain(error))
    # If an exception of the chain proves that the request was never sent, its text names the host
    # too. Otherwise the first cause is the most informative exception.
    unsent = next((link for link in chain if _names(link) & _NEVER_SENT), None)
    root = unsent or chain[-1]
    kinds = (BY_CLASS.get(cls.__name__) for cls in type(error).__mro__)
    kind = next(filter(None, kinds), ConnectionFailed)
    text = _clean(f"{type(root).__name__}: {root}".removesuffix(": "), api_key)
    return (BadRequest if _names(root) & _BAD_URL else kind)(
        f"{came} from {provider}: {text}", provider=provider, reached=unsent is None
    )


def from_answer(
    *,
    provider: str,
    status: int,
    headers: Mapping[str, str],
    body: Any,
    api_key: str | None = None,
) -> ProviderError:
    """Convert an answer that reports a failure into an error of ``app.errors``.

    Args:
        provider: Name of the provider that answered.
        status: HTTP status; it may be 200 if the body, or an event of a stream, is an error.
        headers: Headers of the answer.
        body: The parsed answer if it is JSON, otherwise its text.
        api_key: The key of the call, which is removed from the message.

    Returns:
        The error to raise.
    """
    text, codes = _read(body)
    code = codes[0] if codes else None
    kind = _kind(status, codes, text)
    shown = f" ({code})" if code else ""
    return kind(
        f"{provider} answered {status}{shown}: {_clean(text, api_key)}",
        provider=provider,
        status=status,
        code=code,
        request_id=request_id(headers) or _text(body, "request_id"),
        retry_after_s=retry_after_s(headers),
        headers=limit_headers(headers),
    )


def _kind(status: int, codes: list[str], text: str) -> type[ProviderError]:
    if status < HTTPStatus.BAD_REQUEST:
        # Gateways put the original provider's status into the body.
        inner = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)
        if inner is None:
            if QUOTA_CODES.intersection(codes):
                return QuotaExhausted
            return next(filter(None, map(BY_TYPE.get, codes)), ServerFailure)
        status = inner
    if status == HTTPStatus.TOO_MANY_REQUESTS and QUOTA_CODES.intersection(codes):
        return QuotaExhausted
    if status in _CAPACITY_STATUSES and _lacks_capacity(codes, text):
        return Overloaded
    usual = BadRequest if status < HTTPStatus.INTERNAL_SERVER_ERROR else ServerFailure
    return BY_STATUS.get(status, usual)


def _lacks_capacity(codes: list[str], text: str) -> bool:
    return bool(CAPACITY_CODES.intersection(code.lower() for code in codes)) or bool(
        _NO_CAPACITY.search(text)
    )


def _read(body: Any) -> tuple[str, list[str]]:
    """Read the message and the codes of an error body, the most specific code first."""
    if isinstance(body, bytes):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            body = body.decode("utf-8", "replace")
    error = body.get("error") or body if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return str(error), []
    details = error.get("details")
    fields = (_text(details, "error_code"), _text(error, "code"), _text(error, "type"))
    text = _text(error, "message") or _text(error, "detail") or str(dict(error))
    return text, [code for code in fields if code]


def _text(value: Any, key: str) -> str | None:
    part = value.get(key) if isinstance(value, Mapping) else None
    return None if part is None or isinstance(part, Mapping | list) else str(part)


def _clean(text: str, api_key: str | None) -> str:
    """Shorten a provider's text to one line, without anything that looks like a key."""
    # A placeholder key, such as "x" for a local server, is no secret, and may occur in any word.
    if api_key and len(api_key) >= MIN_SECRET_CHARS:
        text = text.replace(api_key, "[key]")
    text = " ".join(_SECRET.sub("[key]", text[: 4 * MAX_MESSAGE_CHARS]).split())
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}..."


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__

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
from app.telemetry.redaction import without_learned

MAX_MESSAGE_CHARS = 500
MIN_SECRET_CHARS = 8

BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationFailed,
    402: QuotaExhausted,
    403: AuthenticationFailed,
    408: ConnectionFailed,
    409: ServerFailure,
    429: RateLimited,
    498: Overloaded,  # Groq: the flexible tier has no capacity
    499: ConnectionFailed,
    503: Overloaded,
    529: Overloaded,
}
# Names of errors that come without a status of their own, in a 200 or as an event of a stream.
BY_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": AuthenticationFailed,
    "billing_error": QuotaExhausted,
    "bio_policy": BadRequest,
    "data_residency_mismatch": BadRequest,
    "deadline_exceeded": ConnectionFailed,
    "engine_overloaded_error": Overloaded,
    "image_parse_error": BadRequest,
    "invalid_argument": BadRequest,
    "invalid_image": BadRequest,
    "invalid_prompt": BadRequest,
    "invalid_request_error": BadRequest,
    "misalignment_policy_violation": BadRequest,
    "model_not_found": BadRequest,
    "not_found_error": BadRequest,
    "overloaded_error": Overloaded,
    "permission_denied": AuthenticationFailed,
    "permission_error": AuthenticationFailed,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
    "rate_limit_reached_error": RateLimited,
    "request_too_large": BadRequest,
    "resource_exhausted": RateLimited,
    "server_is_overloaded": Overloaded,
    "service_unavailable": Overloaded,
    "service_unavailable_error": Overloaded,
    "slow_down": Overloaded,
    "timeout_error": ConnectionFailed,
    "unauthenticated": AuthenticationFailed,
    "unavailable": Overloaded,
}
# Codes of accounts that are used up, with any status; waiting does not help.
QUOTA_CODES = frozenset(
    {
        "allocationquota.freetieronly",
        "arrearage",
        "billing_hard_limit_reached",
        "billing_not_active",
        "blocked_api_access",
        "contract_spend_limit_reached",
        "credit_balance_exhausted",
        "credits_exhausted",
        "enforced_spend_limit_reached",
        "exceeded_current_quota_error",
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_funds",
        "insufficient_quota",
        "insufficient_user_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "payment_required",
        "project_spend_limit_exceeded",
        "1113",  # Zhipu: the account is in arrears
        "1309",  # Zhipu: the plan has expired
    }
)
# Providers that have no code for this say it in words.
_QUOTA_WORDS = re.compile(
    r"credit balance is too low|insufficient (?:account )?(?:balance|credits?|funds|quota)"
    r"|(?:used|exhausted) (?:up )?(?:all|its|your) (?:of your |the )?(?:available )?credits"
    r"|out of credits|not enough credits|requires more credits|monthly spending limit"
    r"|reached your .{0,40}usage limit|check your account balance"
    r"|spend(?:ing)? limit (?:has been |was )?(?:reached|exceeded)|spending cap|key limit exceeded"
    r"|account is in arrears|overdue|(?:don't|doesn't|do not) have (?:any|enough) credits"
    r"|\u4f59\u989d\u4e0d\u8db3|\u6b20\u8d39",
    re.IGNORECASE,
)
_QUOTA_STATUSES = frozenset({400, 401, 402, 403, 429})
# A request that is larger than the limit never passes, however long the caller waits.
_TOO_LARGE = re.compile(r"request too large", re.IGNORECASE)
_ASKED_OF_LIMIT = re.compile(r"limit:? ([\d,]+)\b.{0,60}?requested:? ([\d,]+)\b", re.IGNORECASE)
# The status that an error inside a 200 stands for.
_STATUS_OF: dict[type[ProviderError], int] = {
    AuthenticationFailed: 401,
    BadRequest: 400,
    ConnectionFailed: 408,
    Overloaded: 503,
    QuotaExhausted: 402,
    RateLimited: 429,
    ServerFailure: 500,
}
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
# The fields in which servers give an error's code and message.
_CODES = ("code", "type", "error_type", "status")
_MESSAGES = ("message", "detail", "msg", "error_msg")
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
    error = _error_of(body)
    text, codes = _read(error)
    code = codes[0] if codes else None
    kind, inner = _kind(status, codes, text, may_pass="retryDelay" in str(body))
    shown = f" ({code})" if code else ""
    return kind(
        f"{provider} answered {status}{shown}: {_clean(text, api_key)}",
        provider=provider,
        status=inner,
        code=code,
        request_id=request_id(headers) or _text(_plain(body), "request_id"),
        retry_after_s=retry_after_s(headers, {"error": error}),
        headers=limit_headers(headers),
    )


def _kind(
    status: int, codes: list[str], text: str, *, may_pass: bool
) -> tuple[type[ProviderError], int]:
    """Return the class of a failure and its status; that of an error inside a 200 is its own."""
    names = [code.lower() for code in codes]
    if status < HTTPStatus.MULTIPLE_CHOICES:
        # Gateways put the original provider's status into the body.
        inner = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)
        named = next(filter(None, map(BY_TYPE.get, names)), ServerFailure)
        status = _STATUS_OF[named] if inner is None else inner
    in_words = status in _QUOTA_STATUSES and not may_pass and _QUOTA_WORDS.search(text)
    if in_words or QUOTA_CODES.intersection(names):
        return QuotaExhausted, status
    if status in _CAPACITY_STATUSES and _lacks_capacity(names, text):
        return Overloaded, status
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    kind = BY_STATUS.get(status, BadRequest if refused else ServerFailure)
    return BadRequest if kind is RateLimited and _never_passes(text) else kind, status


def _lacks_capacity(names: list[str], text: str) -> bool:
    return bool(CAPACITY_CODES.intersection(names)) or _NO_CAPACITY.search(text) is not None


def reports_failure(answer: Any) -> bool:
    """Return whether an answer with the status 200 is the body of an error."""
    if not isinstance(answer, Mapping):
        return False
    has_text = any(answer.get(name) for name in _MESSAGES)
    says = "error" in (answer.get("object"), answer.get("type")) or "code" in answer
    return bool(answer.get("error")) or (has_text and says)


def _never_passes(text: str) -> bool:
    """Return whether a request is larger than the whole limit that refused it."""
    if _TOO_LARGE.search(text):
        return True
    asked = _ASKED_OF_LIMIT.search(text)
    return asked is not None and _number(asked[2]) > _number(asked[1])


def _number(digits: str) -> int:
    return int(digits.replace(",", ""))


def _plain(body: Any) -> Any:
    """Return the parsed body; Google's servers put it into a list."""
    if isinstance(body, bytes):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            body = body.decode("utf-8", "replace")
    return body[0] if isinstance(body, list) and body else body


def _error_of(body: Any) -> Any:
    body = _plain(body)
    return body.get("error") or body if isinstance(body, Mapping) else body


def _read(error: Any) -> tuple[str, list[str]]:
    """Read the message and the codes of an error, the most specific code first."""
    if not isinstance(error, Mapping):
        return str(error), []
    details = error.get("details")
    fields = (_text(details, "error_code"), *(_text(error, name) for name in _CODES))
    text = next(filter(None, (_text(error, name) for name in _MESSAGES)), None)
    return text or str(dict(error)), [code for code in fields if code]


def _text(value: Any, key: str) -> str | None:
    part = value.get(key) if isinstance(value, Mapping) else None
    return None if part is None or isinstance(part, Mapping | list) else str(part)


def _clean(text: str, api_key: str | None) -> str:
    """Shorten a provider's text to one line, without anything that looks like a key."""
    # A placeholder key, such as "x" for a local server, is no secret, and may occur in any word.
    if api_key and len(api_key) >= MIN_SECRET_CHARS:
        text = text.replace(api_key, "[key]")
    text = without_learned(text)
    text = " ".join(_SECRET.sub("[key]", text[: 4 * MAX_MESSAGE_CHARS]).split())
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}..."


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__

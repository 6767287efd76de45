"""The bodies of error responses, in the form of each provider."""

from typing import Any

from app.simulator.chat import Refusal

_SERVER_ERROR = 500

_OPENAI: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Your request could not be read."),
    401: (
        "invalid_request_error",
        "invalid_api_key",
        (
            "Incorrect API key provided. You can find your API key at "
            "https://platform.openai.com/account/api-keys."
        ),
    ),
    403: (
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    429: (
        "requests",
        "rate_limit_exceeded",
        (
            "Rate limit reached for {model} in organization org-simulator. "
            "Visit https://platform.openai.com/account/rate-limits to learn more."
        ),
    ),
    500: (
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    503: ("server_error", None, "The engine is currently overloaded, please try again later"),
}
_QUOTA_MESSAGE = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, read the docs: "
    "https://platform.openai.com/docs/guides/error-codes/api-errors."
)
_NO_CAPACITY = "resource_unavailable"
_QUOTA_CODES = frozenset(
    (
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
    )
)

_ANTHROPIC: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "The request could not be read."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use this resource."),
    404: ("not_found_error", "model: {model}"),
    409: ("conflict_error", "The request conflicts with another one."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: (
        "rate_limit_error",
        (
            "This request would exceed your organization's rate limit for {model}. For details, "
            "refer to: https://docs.claude.com/en/api/rate-limits."
        ),
    ),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}


def openai_error(refusal: Refusal, model: str) -> dict[str, Any]:
    """Make OpenAI's body: the type is the kind of limit or request, and the code is the cause."""
    fallback = _OPENAI[400 if refusal.status < _SERVER_ERROR else _SERVER_ERROR]
    kind, code, message = _OPENAI.get(refusal.status, fallback)
    if refusal.code in _QUOTA_CODES:
        kind, message = "insufficient_quota", _QUOTA_MESSAGE
    elif refusal.code == _NO_CAPACITY:
        kind, message = _NO_CAPACITY, "Resource Unavailable: no capacity for this service tier."
    return {
        "error": {
            "message": refusal.message or message.format(model=model),
            "type": refusal.kind or kind,
            "param": refusal.param,
            "code": refusal.code or code,
        }
    }


def anthropic_error(refusal: Refusal, model: str, request_id: str) -> dict[str, Any]:
    """Make Anthropic's body: each status has one type, and the details have the code."""
    fallback = _ANTHROPIC[400 if refusal.status < _SERVER_ERROR else _SERVER_ERROR]
    kind, message = _ANTHROPIC.get(refusal.status, fallback)
    error: dict[str, Any] = {
        "type": kind,
        "message": refusal.message or message.format(model=model),
    }
    if refusal.code is not None:
        error["details"] = {"error_code": refusal.code}
    return {"type": "error", "error": error, "request_id": request_id}

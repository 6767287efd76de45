"""Converts errors of an SDK, of its transport or in an answer into the errors of ``app.errors``.

This module imports no SDK. It recognizes exceptions by the names of their classes. A test fails if
the name of an SDK's exception is missing here.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from app.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    ProviderError,
    ServerFailure,
)
from app.llm.error_kinds import BY_NUMBER, Kind, kind_of, names_error
from app.llm.headers import limit_headers, request_id, retry_after_s
from app.llm.wire import PROTOCOL_ERRORS, read_json
from app.telemetry.redaction import without_learned

MAX_MESSAGE_CHARS = 500
# The words of an error stand at its beginning, and a server decides on its length.
_MAX_READ_CHARS = 20_000
MIN_SECRET_CHARS = 8

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
# The fields in which servers give an error's codes and message.
_CODES = (
    "code",
    "error_code",
    "statusCode",
    "status_code",
    "http_code",
    "__type",
    "type",
    "error_type",
    "status",
)
# The fields in which Azure gives a code that is narrower than the error's own.
_INNER = ("innererror", "inner_error", "innerError")
_MESSAGES = (
    "message",
    "detail",
    "msg",
    "error_msg",
    "status_msg",
    "error_message",
    "error_description",
    "Message",
)
# Fields that the parts of ordinary answers have, too.
_AMBIGUOUS = frozenset({"type", "error_type", "status"})
# Values of these fields that tell nothing, or that say that all is well.
_NO_CODES = frozenset({"", "0", "200", "ok", "success", "error", "failed", "none", "null"})
# These fields show that a document is an answer or a piece of an answer, in the form of a protocol.
_OF_PROTOCOL = frozenset(
    {"choices", "content", "output", "delta", "content_block", "response", "item", "usage", "type"}
)
# Fields of a message of a model, which is no message of an error.
_OF_MESSAGE = frozenset({"role", "content", "stop_reason", "usage"})
_CONTENT = ("choices", "content", "output", "delta", "content_block")
_DEEPEST = 5
_BAD_URL = frozenset({"InvalidURL", "UnsupportedProtocol"})
# Exceptions that prove that there was no connection, so the request was never sent. ConnectError
# and ConnectTimeout do not prove this, because the SDKs' transports also raise these two exceptions
# for connections that were lost after the request.
_NEVER_SENT = _BAD_URL | {"ClientConnectorError", "ConnectionTimeoutError"}
_SECRET = re.compile(r"\b(?:sk|pk|key)-[\w*.-]{6,}|(?<=Bearer )\S+")


def from_exception(
    error: Exception, *, provider: str, api_key: str | None = None, came: str = "no answer"
) -> ProviderError:
    """Convert an exception of an SDK or of its transport into an error of ``app.errors``.

    Args:
        error: The exception.
        provider: Name of the provider that was called.
        api_key: The key of the call; the key is removed from the message.
        came: The beginning of the message; this beginning says whether an answer had begun.

    Returns:
        The error to raise.
    """
    response = getattr(error, "response", None)
    body = getattr(error, "body", None)
    if response is not None and response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
        body = _whole(response, body)
    if response is not None or isinstance(body, Mapping):
        return from_answer(
            status=HTTPStatus.OK if response is None else response.status_code,
            headers={} if response is None else response.headers,
            body=body if body is not None else getattr(error, "message", str(error)),
            provider=provider,
            api_key=api_key,
        )
    chain = list(_chain(error))
    # If an exception of the chain proves that the request was never sent, the text of this
    # exception names the host, too. Otherwise the first cause is the most informative exception.
    unsent = next((link for link in chain if _names(link) & _NEVER_SENT), None)
    root = unsent or chain[-1]
    kinds = (BY_CLASS.get(cls.__name__) for cls in type(error).__mro__)
    kind = next(filter(None, kinds), ConnectionFailed)
    text = _clean(f"{type(root).__name__}: {root}".removesuffix(": "), api_key)
    return (BadRequest if _names(root) & _BAD_URL else kind)(
        f"{came} from {provider}: {text}", provider=provider, reached=unsent is None
    )


def _whole(response: Any, part: Any) -> Any:
    """Return the body of a response; the SDKs' exceptions have only the body's part "error"."""
    try:
        return response.content or part
    except RuntimeError:  # the body has not been read
        return part


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
        api_key: The key of the call; the key is removed from the message.

    Returns:
        The error to raise.
    """
    body = _plain(body)
    levels = _levels(body)
    text, codes = _read(levels)
    text = text[:_MAX_READ_CHARS]
    code = codes[0] if codes else None
    kind, inner = kind_of(
        status,
        codes,
        text,
        numbered=_numbered(levels),
        may_pass="retryDelay" in str(body),
    )
    shown = f" ({code})" if code else ""
    return kind(
        f"{provider} answered {status}{shown}: {_clean(text, api_key)}",
        provider=provider,
        status=inner,
        code=code,
        request_id=request_id(headers) or _text(body, "request_id"),
        retry_after_s=retry_after_s(headers, levels),
        headers=limit_headers(headers),
    )


def reports_failure(document: Any) -> bool:
    """Return whether a document with the status 200 is an error in place of an answer.

    The document is a whole answer or the data of one event. An error object shows a failure even if
    the document also has an answer. Other forms of errors show a failure only if the document has
    no part of an answer.

    Args:
        document: The parsed JSON.

    Example:
        >>> reports_failure({"choices": [], "code": "InternalError", "message": "boom"})
        True
        >>> reports_failure({"choices": [{"delta": {"content": "Hi"}}], "error": None})
        False
    """
    if isinstance(document, list):  # Google's servers put errors into a list
        return any(map(reports_failure, document[:1]))
    if not isinstance(document, Mapping):
        return False
    # Every event of every stream passes here, so the cheap tests come first.
    if (error := document.get("error")) and not _is_void(error):
        return True
    if "base_resp" in document and _base_code(document):
        return True
    kind = document.get("type")
    of_responses = isinstance(kind, str) and kind.startswith("response.")
    if of_responses or any(map(document.get, _CONTENT)):
        return False
    said = "error" in (kind, document.get("object")) or document.get("success") is False
    return said or not _is_void(document.get("errors")) or _says(document)


def _says(document: Mapping[str, Any]) -> bool:
    """Return whether a document has a message of an error, and no sign of anything else."""
    _, *inner = _levels(document)
    if not inner and not _message(document):
        return False
    given = [name for name in _CODES if document.get(name) is not None]
    codes = {name: code for name in given if (code := _code(document[name]))}
    sure = (name not in _AMBIGUOUS or names_error(code) for name, code in codes.items())
    # A message alone is enough if no other field gives the message another meaning.
    return any(sure) or not (given or _OF_PROTOCOL.intersection(document))


def _plain(body: Any) -> Any:
    """Return the parsed body; a text that is no JSON stays as it is."""
    if isinstance(body, str) and body.lstrip("\ufeff \r\n\t").startswith(("{", "[")):
        body = body.strip().encode("utf-8", "replace")
    if isinstance(body, bytes):
        try:
            body = read_json(body)
        except PROTOCOL_ERRORS:
            body = body.decode("utf-8", "replace")
    return body[0] if isinstance(body, list) and body else body


def _levels(body: Any) -> list[Any]:
    """Return a body and the errors inside the body, the innermost error last."""
    levels: list[Any] = []
    while body is not None and len(levels) < _DEEPEST:
        if isinstance(body, list) and body:
            body = body[0]
        levels.append(body)
        body = _inner(body) if isinstance(body, Mapping) else None
    return levels or [body]


def _inner(level: Mapping[str, Any]) -> Any:
    """Return the error that is inside another error, or None."""
    error = level.get("error")
    if isinstance(error, Mapping | list | str) and not _is_void(error):
        return error
    if _base_code(level):
        return level["base_resp"]
    if _message(level):
        return None
    # Some errors have a list of single mistakes. Some gateways pass on an error in the place of the
    # gateway's own message.
    nested = (level.get(name) for name in ("errors", "detail", "message"))
    found = (n for n in nested if isinstance(n, Mapping | list) and not _is_void(n))
    return next((n for n in found if isinstance(n, list) or not _OF_MESSAGE & n.keys()), None)


def _read(levels: list[Any]) -> tuple[str, list[str]]:
    """Read the message and the codes of an error, the most specific code first."""
    *outer, last = levels
    codes: list[str] = []
    if isinstance(last, str) and not re.search(r"\s", last) and any(map(_message, outer)):
        codes.append(last)  # {"error": "rate_limited", "message": "..."}
        levels = outer
    texts = (level if isinstance(level, str) else _message(level) for level in reversed(levels))
    text = next(filter(None, texts), None)
    for level in reversed(levels):
        codes += _codes_of(level, around=level is not levels[-1])
    return text or str(dict(last) if isinstance(last, Mapping) else last), codes


def _codes_of(level: Any, *, around: bool) -> list[str]:
    """Return the codes of an error, or of a document around an error.

    The type of a document may be no type of an error.
    """
    if not isinstance(level, Mapping):
        return []
    details = level.get("details")
    found = {"details": details.get("error_code") if isinstance(details, Mapping) else None}
    inner = next((part for part in map(level.get, _INNER) if isinstance(part, Mapping)), {})
    found |= {name: level.get(name) for name in _CODES}
    found["inner"] = inner.get("code")
    codes = ((name, _code(value)) for name, value in found.items())
    unsure = _AMBIGUOUS if around else ()
    return [code for name, code in codes if code and (name not in unsure or names_error(code))]


def _numbered(levels: list[Any]) -> Kind | None:
    """Return the class of an error number, or None if no provider's form gives it a meaning."""
    for level in levels:
        if _base_code(level):
            return BY_NUMBER["base_resp"].get(_base_code(level) or "", ServerFailure)
    last = levels[-1]
    number = _code(last.get("error_code")) if isinstance(last, Mapping) else None
    return BY_NUMBER["error_code"].get(number) if number and "error_msg" in last else None


def _base_code(level: Any) -> str | None:
    """Return the code that MiniMax gives beside every answer; None if the code means success."""
    base = level.get("base_resp") if isinstance(level, Mapping) else None
    return _code(base.get("status_code")) if isinstance(base, Mapping) else None


def _is_void(value: Any) -> bool:
    """Return whether a value says nothing, such as the error ``{"code": 0, "message": ""}``."""
    if isinstance(value, Mapping):
        return all(_is_void(part) for part in value.values())
    if isinstance(value, list):
        return all(_is_void(part) for part in value)
    return not value or (isinstance(value, str) and not value.strip())


def _message(level: Any) -> str | None:
    return next(filter(None, (_text(level, name) for name in _MESSAGES)), None)


def _code(value: Any) -> str | None:
    """Return a code as a string, or None if the value tells nothing or is a sentence."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    code = str(value).strip().rpartition("#")[2]  # AWS: "com.amazon#ThrottlingException"
    return None if code.lower() in _NO_CODES or " " in code else code


def _text(value: Any, key: str) -> str | None:
    part = value.get(key) if isinstance(value, Mapping) else None
    return None if part is None or isinstance(part, Mapping | list) else str(part)


def _clean(text: str, api_key: str | None) -> str:
    """Shorten a provider's text to one line, without anything that looks like a key."""
    # A placeholder key, such as "x" for a local server, is no secret, and may occur in any word.
    if api_key and len(api_key) >= MIN_SECRET_CHARS:
        text = text.replace(api_key, "[key]")
    text = without_learned(text.encode("utf-8", "replace").decode())
    text = " ".join(_SECRET.sub("[key]", text[: 4 * MAX_MESSAGE_CHARS]).split())
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}..."


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__

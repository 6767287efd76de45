"""Remote agents, which post their inputs as JSON to a URL. The response is the agent's output."""

import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar
from pydantic import SecretStr
from yarl import URL

from app.domain.bounds import YEAR_S, Bounds
from app.domain.json_text import read_json, write_json
from app.domain.suggestions import shortened
from app.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    InvalidJson,
    Overloaded,
    ProviderError,
    RateLimited,
    ResultTooLarge,
    ServerFailure,
)
from app.kinds.base import AgentContext, Config
from app.kinds.config import check_keys, refuse
from app.kinds.signatures import (
    KEY_HEADER,
    OLD_SIGNATURE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    old_signature,
    signature,
)
from app.llm.headers import retry_after_s
from app.outbound.addresses import resolve_public, url_problem
from app.outbound.content_types import content_type_of
from app.outbound.headers import check_headers, name_problem, value_problem
from app.outbound.responses import BoundedResponse

KEYS = ("url", "headers", "timeout", "secret_env")
#: Prefix of the environment variables that an agent may name; no other variable may be sent out.
SECRET_PREFIX = "AGENT_SECRET_"  # noqa: S105  a prefix of names, not a secret
TIMEOUT = Bounds(high=YEAR_S, positive=True)
CONNECT_S = 10.0
CHUNK_BYTES = 65_536
MAX_SHOWN_BYTES = 300
OK, REDIRECTION, BAD_REQUEST, SERVER_FAILURE = 200, 300, 400, 500

_SECRET = re.compile(rf"{SECRET_PREFIX}[A-Z0-9_]+")
# Headers that this module sets.
_OURS = {
    *("content-type", "content-encoding", "accept-encoding"),
    *(name.lower() for name in (KEY_HEADER, SIGNATURE_HEADER, OLD_SIGNATURE_HEADER)),
    TIMESTAMP_HEADER.lower(),
}
_SENSITIVE = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)
_BY_STATUS: Mapping[int, type[ProviderError]] = {
    401: AuthenticationFailed,
    403: AuthenticationFailed,
    408: ServerFailure,
    425: ServerFailure,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}


def no_secret(name: str) -> SecretStr | None:  # noqa: ARG001  the same form as in workers
    """Return None, because a process that sends no requests knows no secrets."""
    return None


class HttpKind:
    """Agents on another server; ``config`` has the URL, the headers and the timeout.

    If a response is lost, the server may already have done the work of the attempt. The same
    ``Idempotency-Key`` twice tells the server that the same attempt came twice.

    Args:
        allow: Non-public hosts, addresses and networks that agents may reach.
        secret: Function that returns the secret in an environment variable, or None.

    Example:
        Agent(name="score", kind="http", config={"url": "https://agents.example.com/score"})
    """

    def __init__(
        self,
        *,
        allow: Collection[str] = (),
        secret: Callable[[str], SecretStr | None] = no_secret,
    ) -> None:
        self._allow = allow
        self._secret = secret

    def validate(self, config: Config) -> None:
        """Check the form of the settings; the addresses of the URL are checked at each request."""
        check_keys(config, KEYS, required=("url",))
        if problem := url_problem(config["url"]):
            refuse("url", problem)
        if config.get("timeout") is not None and (problem := TIMEOUT.problem(config["timeout"])):
            refuse("timeout", problem)
        if config.get("secret_env") is not None:
            _check_secret("secret_env", config["secret_env"])
        headers = config.get("headers", {})
        if not isinstance(headers, Mapping):
            refuse("headers", f"is {shortened(headers)}: give a dict of names and values")
        for name, value in headers.items():
            _check_header(name, value)

    async def run(self, context: AgentContext) -> Any:
        """Post the inputs and return the response; a cancellation closes the connection."""
        config = context.config
        body = write_json(dict(context.inputs))
        headers = self._headers(context, body)
        _check_known(headers)
        target = await resolve_public(config["url"], allow=self._allow)
        timeout_s = min(config.get("timeout") or math.inf, context.timeout_s)
        try:
            async with (
                ClientSession(
                    connector=target.connector(),
                    timeout=ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
                    response_class=BoundedResponse,
                    cookie_jar=DummyCookieJar(),
                ) as session,
                # Redirects are not followed, because a redirect may lead to an unchecked address.
                session.post(
                    config["url"], data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return await _answer(response, context)
        except TimeoutError as error:
            raise ConnectionFailed(
                f"{target.host} has not answered within {timeout_s:g} s", provider="http"
            ) from error
        except ClientError as error:
            raise ConnectionFailed(
                f"{target.host} could not be reached: {type(error).__name__}: {error}",
                provider="http",
            ) from error

    def _headers(self, context: AgentContext, body: bytes) -> dict[str, str]:
        given = context.config.get("headers", {})
        headers = {name: self._header(value) for name, value in given.items()} | {
            "Content-Type": "application/json",
            # No compression: a compressed body may become much larger than its stated size.
            "Accept-Encoding": "identity",
            KEY_HEADER: context.idempotency_key,
        }
        if secret := context.config.get("secret_env"):
            timestamp, known = str(int(time.time())), self._known(secret)
            headers |= {
                TIMESTAMP_HEADER: timestamp,
                SIGNATURE_HEADER: signature(
                    known,
                    timestamp=timestamp,
                    method="POST",
                    url=str(URL(context.config["url"]).with_fragment(None)),
                    key=context.idempotency_key,
                    body=body,
                ),
                OLD_SIGNATURE_HEADER: old_signature(known, timestamp, body),
            }
        return headers

    def _header(self, value: Any) -> str:
        return self._known(value["env"]) if isinstance(value, Mapping) else str(value)

    def _known(self, name: str) -> str:
        # The name is checked again, because a config may be stored without a call of validate().
        secret = self._secret(name) if _SECRET.fullmatch(name) else None
        if secret is None:
            raise AuthenticationFailed(
                f"{name} is not set where the workers run: set it and start them again",
                provider="http",
                reached=False,
            )
        return secret.get_secret_value()


def _check_known(headers: Mapping[str, str]) -> None:
    """Refuse values of environment variables that are no values of headers."""
    try:
        check_headers(headers)
    except ValueError as error:
        raise AuthenticationFailed(
            f"{error}: correct the variable where the workers run", provider="http", reached=False
        ) from error


async def _answer(response: ClientResponse, context: AgentContext) -> Any:
    if not OK <= response.status < REDIRECTION:
        raise _refusal(response, await response.content.read(MAX_SHOWN_BYTES))
    content = await _read(response, context)
    if not content:
        return None
    content_type = content_type_of(response.headers.get("Content-Type"))
    if not content_type.name.endswith("json"):
        return content.decode("utf-8", "replace")
    try:
        return read_json(content, "the answer")
    except InvalidJson as error:
        raise ServerFailure(
            f"{response.url.host} answered with invalid JSON: {error}",
            provider="http",
            status=response.status,
        ) from error


async def _read(response: ClientResponse, context: AgentContext) -> bytes:
    content = bytearray()
    async for part in response.content.iter_chunked(CHUNK_BYTES):
        content += part
        if len(content) > context.max_output_bytes:
            raise ResultTooLarge(
                f"agent {context.agent!r}: {response.url.host} answers with more "
                f"than {context.max_output_bytes:,} bytes: send a smaller answer, or raise "
                "engine.max_output_bytes"
            )
    return bytes(content)


def _refusal(response: ClientResponse, content: bytes) -> ProviderError:
    status = response.status
    kind = _BY_STATUS.get(status, ServerFailure if status >= SERVER_FAILURE else BadRequest)
    said = (
        content.decode("utf-8", "replace").strip()
        if status >= BAD_REQUEST
        else "redirects are not followed: give the URL that the redirect leads to"
    )
    lower = {name.lower(): value for name, value in response.headers.items()}
    return kind(
        f"{response.url.host} answered {status}: {said or response.reason}",
        provider="http",
        status=status,
        retry_after_s=retry_after_s(lower),
    )


def _check_secret(path: str, name: Any) -> None:
    if not isinstance(name, str) or not _SECRET.fullmatch(name):
        refuse(
            path,
            f"is {shortened(name)}: give the name of a variable that begins with {SECRET_PREFIX}, "
            "which the workers read",
        )


def _check_header(name: str, value: Any) -> None:
    path = f"headers.{name}"
    if problem := name_problem(name):
        refuse(path, problem)
    if name.lower() in _OURS:
        refuse(path, "is set for each request: remove it")
    if isinstance(value, Mapping):
        if set(value) != {"env"}:
            refuse(path, 'has an object that is not {"env": "NAME"}')
        _check_secret(f"{path}.env", value["env"])
    elif problem := value_problem(value):
        refuse(path, problem)
    elif _SENSITIVE.search(name):
        refuse(
            path,
            "would be stored with the workflow: put the value into an environment variable of the "
            f'workers, and give the name of the variable: {{"env": "{SECRET_PREFIX}..."}}',
        )

"""Keeps the credentials of a provider, and renews them before they expire.

The first call waits for the operator's function, which returns a token. In the last minute of the
token's life, a call starts the renewal, but the call still goes out with the old token. If the
provider rejects a token, the call waits for a new token and is sent once more.
"""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import structlog

from app.concurrency.user_code import TookTooLong, UserCodeFailed, result_of, within
from app.domain.usage import Partial, Usage
from app.errors import AuthenticationFailed, CredentialsFailed
from app.llm.credentials import Authorization, NotCredentials, read_credentials
from app.llm.request import Request
from app.telemetry.logging import of_nobody
from app.telemetry.redaction import HIDDEN, learn, without_learned

#: A token is renewed this long before its end. If a tenth of the token's lifetime is less than this
#: time, the token is renewed a tenth of its lifetime before its end.
RENEWED_BEFORE_S = 60.0
#: Seconds that a call of the function may take.
TIME_LIMIT_S = 20.0
#: Seconds from a failure of the function to the next call of the function. The first retry of an
#: agent with the default policy comes later.
PAUSE_S = 0.5
_MAX_MESSAGE_CHARS = 300
# Matches a series of the characters of tokens. Messages show shorter series, and series that look
# like words.
_SERIES = re.compile(r"[\w.~+/=%-]{16,}")
_NO_WORDS = re.compile(r"\d|[A-Z](?![a-z]{2})")

Step = TypeVar("Step")

log = structlog.get_logger(__name__)


class CredentialCache:
    """The credentials of one provider, for all calls of a process.

    Its weakness: each process has its own token, so each process calls the function once per
    lifetime of a token. The alternative is to share tokens over Redis, but then Redis would have
    secrets.

    Args:
        function: The operator's function, which takes no arguments and returns credentials
            (``app.llm.credentials``). A coroutine function runs on the loop of user code, and any
            other function runs in a thread.
        path: Path of the function, for messages.
        provider: Name of the provider.
        clock: Returns the time in seconds.
        time_limit_s: Seconds that a call of the function may take.

    Example:
        cache = CredentialCache(token, path="acme.cloud:token", provider="vertex")
        client = OpenAIClient("none", base_url=url, provider="vertex", credentials=cache)
    """

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        path: str,
        provider: str,
        clock: Callable[[], float] = time.monotonic,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self._function = function
        self._path = path
        self._provider = provider
        self._clock = clock
        self._time_limit_s = time_limit_s
        self._held: Authorization | None = None
        self._renew_at_s = self._ends_at_s = self._next_try_s = -math.inf
        self._renewal: asyncio.Task[Authorization | None] | None = None
        self._failure: Callable[[], AuthenticationFailed] | None = None

    async def get(self) -> Authorization:
        """Return valid credentials; at most one call of the function runs at a time.

        Raises:
            CredentialsFailed: If the function raised an error or took too long.
            AuthenticationFailed: If the function returned no credentials.
        """
        now_s = self._clock()
        due = now_s >= max(self._renew_at_s, self._next_try_s)
        if due and self._renewal is None:
            self._renewal = asyncio.create_task(self._renew(), context=of_nobody())
        if self._held is None or now_s >= self._ends_at_s:
            # If this caller is cancelled, the renewal goes on for the other callers.
            found = await asyncio.shield(self._renewal) if self._renewal else None
            if found is None:
                assert self._failure is not None, "a renewal that brings nothing has failed"
                raise self._failure()
            return found
        return self._held

    async def send(
        self,
        request: Request,
        post: Callable[[Request], Awaitable[Step]],
        on_broken: Callable[[Partial], None] | None = None,
    ) -> Step:
        """Send a request with valid credentials; send it again if the credentials are rejected.

        Args:
            request: The request, without credentials.
            post: Sends a request and reads its answer.
            on_broken: As in ``LLMClient.complete_with_tools``.

        Returns:
            The answer.

        Raises:
            ProviderError: An error of ``get`` or ``post``.
        """
        used = await _free(self.get(), on_broken)
        try:
            return await post(_with(request, used))
        except AuthenticationFailed as error:
            if not _rejects_token(error):
                raise
            fresh = await _free(self._replaced(used), on_broken)
            if fresh is None:
                raise
        # ``before_sent`` waits for the start of the call. This start has already come.
        return await post(replace(_with(request, fresh), before_sent=None))

    async def close(self) -> None:
        """Stop a renewal that still runs."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})

    async def _replaced(self, rejected: Authorization) -> Authorization | None:
        """Return newer credentials; None if the function returns the rejected credentials again."""
        if self._held is rejected:
            self._held, self._renew_at_s = None, -math.inf
        fresh = await self.get()
        return None if fresh.headers == rejected.headers else fresh

    async def _renew(self) -> Authorization | None:
        """Call the function, and keep its credentials or its failure; return the credentials."""
        called_s = self._clock()
        facts = {"provider": self._provider, "function": self._path}
        try:
            found = await self._called()
            for secret in found.secrets:
                learn(secret)
            self._held, self._failure = found, None
            self._ends_at_s = called_s + found.lifetime_s
            self._renew_at_s = self._ends_at_s - min(RENEWED_BEFORE_S, found.lifetime_s / 10)
            log.info("credentials_renewed", lifetime_s=round(found.lifetime_s), **facts)
            return found
        except AuthenticationFailed as error:
            # Every caller raises an error of its own, because an error that is raised is changed
            # later.
            self._failure = partial(type(error), str(error), provider=self._provider, reached=False)
            self._next_try_s = self._clock() + PAUSE_S
            # While the old token is valid, no error of an agent tells of the failure.
            unseen = self._held is not None and self._clock() < self._ends_at_s
            tell = log.warning if unseen else log.info
            tell("credentials_failed", error=str(error), **facts)
            return None
        finally:
            self._renewal = None

    async def _called(self) -> Authorization:
        """Call the function within its time limit, and check the returned value.

        No error of the function is chained, because the text of the error may have the token.
        """
        problem = None
        try:
            found = await within(self._returned(), timeout_s=self._time_limit_s)
        except TookTooLong:
            problem = f"took longer than {self._time_limit_s:g} s"
        except UserCodeFailed as failed:
            problem = f"raised {_shown(failed)}"
        if problem:
            raise self._failed(CredentialsFailed, problem)
        if isinstance(found, str):
            raise self._failed(AuthenticationFailed, found)
        if found.lifetime_s <= 0:
            raise self._failed(
                CredentialsFailed, "returned an expired token, by this machine's clock"
            )
        return found

    async def _returned(self) -> Authorization | str:
        returned = await result_of(self._function)
        try:  # the value may be an object of the operator's own
            found: Authorization | str = await result_of(partial(_read, returned))
        except UserCodeFailed:
            found = "returned a value that cannot be read"
        return found

    def _failed(self, kind: type[AuthenticationFailed], problem: str) -> AuthenticationFailed:
        return kind(
            f"no credentials for {self._provider}: repair the function {self._path}, "
            f"which {problem}"
        )


class KeyOnly:
    """Takes the place of a cache if a provider needs no key, or has a key that the SDK adds."""

    async def send(
        self,
        request: Request,
        post: Callable[[Request], Awaitable[Step]],
        _on_broken: Callable[[Partial], None] | None = None,
    ) -> Step:
        """Send a request unchanged; the arguments are as in ``CredentialCache.send``."""
        return await post(request)

    async def close(self) -> None:
        """Close nothing."""


def _read(found: Any) -> Authorization | str:
    """Return the credentials in a returned value, or the reason why the value has none."""
    try:
        return read_credentials(found)
    except NotCredentials as problem:
        return str(problem)


def _with(request: Request, authorization: Authorization) -> Request:
    return replace(request, headers={**request.headers, **authorization.headers})


def _rejects_token(error: AuthenticationFailed) -> bool:
    """Return whether a provider has refused a request only because of the request's token."""
    if error.partial is not None:
        return False  # a part of the answer was generated, and has a price
    expired = error.status == HTTPStatus.FORBIDDEN and "expired" in str(error).lower()
    return error.status == HTTPStatus.UNAUTHORIZED or expired


async def _free(
    step: Coroutine[Any, Any, Step], on_broken: Callable[[Partial], None] | None
) -> Step:
    """Wait for a step that precedes a request; a call that is cancelled here is free."""
    try:
        return await step
    except asyncio.CancelledError:
        if on_broken is not None:
            on_broken(Partial(usage=Usage(), prompt_counted=True, final=True))
        raise


def _shown(failed: UserCodeFailed) -> str:
    """Return the class and the text of an error, without anything that may be a token."""
    text = " ".join(_SERIES.sub(_hidden, without_learned(failed.message)).split())
    return f"{failed.class_name}: {text[:_MAX_MESSAGE_CHARS]}".removesuffix(": ")


def _hidden(series: re.Match[str]) -> str:
    """Hide a series of characters unless it looks like words, such as the name of a class."""
    return HIDDEN if _NO_WORDS.search(series[0]) else series[0]

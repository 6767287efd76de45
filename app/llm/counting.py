"""Asks a server for the number of tokens of a prompt; Anthropic and OpenAI count for free."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from app.errors import AgentError, ProviderError, ServerFailure
from app.llm.credential_cache import CredentialCache, KeyOnly
from app.llm.request import Request
from app.llm.wire import PROTOCOL_ERRORS, count_of, read_json

if TYPE_CHECKING:
    import httpx2

# Statuses of servers that do not have the endpoint, or do not have the endpoint for this model.
_NOT_OFFERED = frozenset({404, 405, 501})


class CountEndpoint(NamedTuple):
    """The endpoint of an API that counts the tokens of a prompt.

    Attributes:
        path: Path of the request, below the base URL.
        parts: The keys of a request's body that the endpoint takes.
    """

    path: str
    parts: frozenset[str]


class PromptCounts:
    """The counts of one server; many compatible servers offer no counts.

    If a server answers that it lacks the endpoint, the server is still asked once for each model,
    because a gateway may have the endpoint only for the models of some providers.

    Weakness: the server is not asked again until the process ends.

    Args:
        endpoint: The endpoint; None if the API has none.
        provider: Name of the provider.
        credentials: As in ``SdkClient``.
        timeout_s: As in ``SdkClient``.

    Example:
        if counts.offered(model):
            tokens = await counts.ask(model, body, headers, post)
    """

    def __init__(
        self,
        endpoint: CountEndpoint | None,
        *,
        provider: str,
        credentials: CredentialCache | KeyOnly,
        timeout_s: float,
    ) -> None:
        self._endpoint = endpoint
        self._provider = provider
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._not_offered: set[str] = set()

    def offered(self, model: str) -> bool:
        """Return whether the server may count the prompts of a model."""
        return self._endpoint is not None and model not in self._not_offered

    async def ask(
        self,
        model: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        post: Callable[[Request, str], Awaitable["httpx2.Response"]],
    ) -> int | None:
        """Return the number of tokens of a request, or None if the answer does not have the number.

        Args:
            model: Model name.
            body: Body of the request whose prompt is counted; only the parts for the endpoint are
                sent.
            headers: Further headers of the request.
            post: Sends a request to a path.

        Raises:
            ProviderError: If the request fails.
        """
        assert self._endpoint is not None, "the caller asks whether the count is offered"
        path, parts = self._endpoint
        counted = Request(
            body={name: part for name, part in body.items() if name in parts},
            headers=headers,
            timeout_s=self._timeout_s,
            before_sent=None,
            max_tokens=0,
            prompt_tokens=lambda: 0,
        )

        async def send(request: Request) -> int | None:
            return _count_in((await post(request, path)).content)

        try:
            return await self._credentials.send(counted, send)
        except ProviderError as error:
            if error.status not in _NOT_OFFERED:
                raise
            self._not_offered.add(model)
            return None
        except AgentError:
            raise
        except Exception as error:
            raise ServerFailure(
                f"the count of {self._provider} cannot be read: {type(error).__name__}: {error}",
                provider=self._provider,
            ) from error


def _count_in(content: bytes) -> int | None:
    """Read the number of tokens; a count of 0 is a placeholder, because every prompt has tokens."""
    try:
        return count_of(read_json(content)["input_tokens"]) or None
    except PROTOCOL_ERRORS:
        return None

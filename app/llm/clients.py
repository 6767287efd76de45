"""The clients of this process, one for each provider; a client is made at its first use."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from app.domain.suggestions import did_you_mean, listed
from app.errors import ConfigurationError
from app.llm.base import LLMClient

ClientFactory = Callable[[], LLMClient]


class Clients:
    """The providers that this process can call.

    Args:
        factories: For each provider name, a function that makes the provider's client with the
            provider's key and base URL.
    """

    def __init__(self, factories: Mapping[str, ClientFactory]) -> None:
        self._factories = dict(factories)
        self._clients: dict[str, LLMClient] = {}

    @property
    def providers(self) -> list[str]:
        """Names of the providers, in the order of ``factories``."""
        return list(self._factories)

    def get(self, provider: str) -> LLMClient:
        """Return the client of a provider; every call returns the same client.

        A provider without a key has a client, too, but the calls of this client raise
        AuthenticationFailed.

        Raises:
            ConfigurationError: If no provider with this name is configured.
        """
        if client := self._clients.get(provider):
            return client
        if provider not in self._factories:
            raise ConfigurationError(
                f"provider {provider!r} is not configured (known: {listed(self._factories)})"
                f"{did_you_mean(provider, self._factories)}"
            )
        client = self._clients[provider] = self._factories[provider]()
        return client

    def preload(self, providers: Iterable[str]) -> None:
        """Make clients and import their modules now, so that the first calls need not wait."""
        for provider in providers:
            self.get(provider).preload()

    async def close(self) -> None:
        """Close every client that was made."""
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients))

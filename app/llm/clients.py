"""The clients of this process by provider, each made when it is first asked for."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from app.domain.suggestions import did_you_mean, listed
from app.errors import ConfigurationError
from app.llm.base import LLMClient

ClientFactory = Callable[[], LLMClient]


class Clients:
    """The providers that this process can call.

    Args:
        factories: Provider name -> makes its client; keys and base URLs are already in it.
    """

    def __init__(self, factories: Mapping[str, ClientFactory]) -> None:
        self._factories = dict(factories)
        self._clients: dict[str, LLMClient] = {}

    @property
    def providers(self) -> list[str]:
        """Names of the providers, in the order given."""
        return list(self._factories)

    def get(self, provider: str) -> LLMClient:
        """Return the client of a provider, always the same one.

        A provider without a key has a client too: its calls raise AuthenticationFailed.

        Raises:
            ConfigurationError: If no such provider is configured.
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
        """Make clients and import what they need; otherwise the first calls would wait for it."""
        for provider in providers:
            self.get(provider).preload()

    async def close(self) -> None:
        """Close every client that was made."""
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients))

"""The access to one provider, as the settings give it to the makers of clients."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderAccess:
    """URL, key and headers of a provider.

    Attributes:
        base_url: URL of the provider; None means the default URL of OpenAI's or Anthropic's SDK.
        api_key: API key; None if the variable is not set, or if the provider needs no key.
        api_key_env: Name of the variable with the key; None if the provider needs no key.
        credentials: Path ``package.module:function`` of a function that returns tokens in place of
            a key; None if the provider has no such function.
        headers: Further headers.
        query: Query parameters of every request.
        missing: Variables that the headers use, but that are not set.
    """

    base_url: str | None
    api_key: SecretStr | None
    api_key_env: str | None
    credentials: str | None
    headers: Mapping[str, SecretStr]
    query: Mapping[str, str]
    missing: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the provider's key is there, or the provider needs none."""
        return self.api_key_env is None or self.api_key is not None

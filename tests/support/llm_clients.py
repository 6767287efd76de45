"""AgentChord's clients of the providers, for tests."""

from collections.abc import Mapping

from app.llm.anthropic import AnthropicClient
from app.llm.base import LLMClient
from app.llm.openai import OpenAIClient

KEY = "sk-test-of-the-clients"


def client_of(protocol: str, url: str, *, headers: Mapping[str, str] | None = None) -> LLMClient:
    """Return a client of a server that replaces a provider, such as the simulator."""
    if protocol == "openai":
        return OpenAIClient(KEY, base_url=f"{url}/v1", headers=headers)
    return AnthropicClient(KEY, base_url=url, headers=headers)

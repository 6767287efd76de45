"""AgentChord's clients of the providers, for tests."""

from collections.abc import Mapping

from app.llm.anthropic import AnthropicClient
from app.llm.base import LLMClient
from app.llm.openai import OpenAIClient

KEY = "sk-test-of-the-clients"


#: The request forms that the clients speak: a protocol's own form, or another form of OpenAI's.
FORMS = ("openai", "responses", "anthropic")
#: For each form, its protocol, which is also the name of the protocol's own provider.
PROTOCOL_OF = {"openai": "openai", "responses": "openai", "anthropic": "anthropic"}


def client_of(form: str, url: str, *, headers: Mapping[str, str] | None = None) -> LLMClient:
    """Return a client of a server that replaces a provider, such as the simulator."""
    if PROTOCOL_OF[form] == "openai":
        api = "responses" if form == "responses" else None
        return OpenAIClient(KEY, base_url=f"{url}/v1", api=api, headers=headers)
    return AnthropicClient(KEY, base_url=url, headers=headers)

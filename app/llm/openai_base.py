"""The parts of OpenAI's clients that do not depend on the request form."""

from typing import ClassVar

from app.domain.protocols import PROTOCOLS, Protocol
from app.llm.connection import Sdk
from app.llm.lazy_packages import lazy_packages
from app.llm.sdk import SdkClient


class OpenAISdkClient(SdkClient):
    """A client on OpenAI's SDK; its subclasses write the requests of one form.

    Args: as in ``SdkClient``; ``base_url`` includes ``/v1``.
    """

    protocol: ClassVar[Protocol] = PROTOCOLS["openai"]
    default_base_url: ClassVar[str] = "https://api.openai.com/v1"

    def _sdk(self) -> Sdk:
        with lazy_packages("openai"):
            import openai

            return Sdk(
                client=openai.AsyncOpenAI,
                http_client=openai.DefaultAioHttpClient,
                stream=openai.AsyncStream[object],
                error=openai.OpenAIError,
            )

"""What of a protocol is code: its clients, and how its requests take parameters and caching.

The facts of a protocol are in ``app.domain.protocols``, whose names lead here: the domain imports
no client, and a protocol that no provider speaks is not loaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from app.domain.protocols import Protocol

if TYPE_CHECKING:
    from app.llm.base import LLMClient


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The code of one protocol, as ``DIALECT`` in its module.

    Attributes:
        client: Class of its clients, with the arguments of ``app.llm.sdk.SdkClient``.
        refused: Parameters of its API that this application does not send, and why.
        adapt: Returns the parameters as a model takes them, from the model, the parameters (which
            it may change) and ``max_tokens`` or None; raises ParameterRefused.
        least_cached_tokens: Returns the tokens below which a model's provider caches nothing.
    """

    client: "Callable[..., LLMClient]"
    refused: Mapping[str, str]
    adapt: Callable[[str, dict[str, Any], int | None], dict[str, Any]]
    least_cached_tokens: Callable[[str], int]


def dialect_of(protocol: Protocol) -> Dialect:
    """Return the code of a protocol."""
    dialect: Dialect = import_module(f"app.llm.{protocol.name}").DIALECT
    return dialect

"""The code of a protocol: its clients, and the parameters and caching of its requests.

The facts of a protocol are in ``app.domain.protocols``. This module finds the code by the
protocol's name, so that the domain imports no client, and so that the code of a protocol is loaded
only if a provider speaks this protocol.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from app.domain.protocols import Protocol
from app.domain.server_tools import ServerTool

if TYPE_CHECKING:
    from app.llm.base import LLMClient


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The code of one protocol; in the protocol's module, this object is named ``DIALECT``.

    Attributes:
        client: Class of the protocol's clients, with the arguments of ``app.llm.sdk.SdkClient``.
        known: Parameters that an agent may give, because none of them chooses another model, asks
            for more answers, or has a price that is not known. ``adapt`` may still refuse some.
        refused: The API's parameters that this application does not send, each with the reason.
        adapt: Gets the model, the parameters, and ``max_tokens`` or None; may change the
            parameters. Returns the parameters that the model takes, or raises ParameterRefused.
        least_cached_tokens: Returns the fewest prompt tokens that a model's provider caches.
        server_tool: Gets the model and a tool that runs at the provider. Returns the API's form of
            the tool, or raises ParameterRefused if the API does not have the tool.
        choose_api: Gets the model, the parameters, and the request form that the agent or its
            provider asks for, or None. Also gets whether the request has tools, and whether the
            request has tools that run at the provider. Returns the request form, or raises
            ParameterRefused; ``adapt`` finds the form in the parameter ``api``. A protocol with
            only one form does not have this function.
    """

    client: "Callable[..., LLMClient]"
    known: frozenset[str]
    refused: Mapping[str, str]
    adapt: Callable[[str, dict[str, Any], int | None], dict[str, Any]]
    least_cached_tokens: Callable[[str], int]
    server_tool: Callable[[str, ServerTool], dict[str, Any]]
    choose_api: Callable[[str, Mapping[str, Any], str | None, bool, bool], str] | None = None


def dialect_of(protocol: Protocol) -> Dialect:
    """Return the code of a protocol."""
    dialect: Dialect = import_module(f"app.llm.{protocol.name}").DIALECT
    return dialect

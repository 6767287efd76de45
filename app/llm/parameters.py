"""Adapts a request's parameters to the model: translates, removes or refuses parameters.

Clients adapt parameters before they send a request. ``enqueue`` adapts parameters before it stores
anything. A parameter that no code knows is refused, because it may choose another model, ask for
more answers, or switch on a plugin that has a price. The operator can add parameters for each
provider. Rules that belong to only one protocol are in the protocol's ``Dialect``. All rules come
from the providers' reference pages (2026).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.domain.model_limits import limits_of
from app.domain.protocols import PROTOCOLS, Protocol
from app.domain.server_tools import ServerTool
from app.domain.suggestions import did_you_mean, listed, shortened
from app.llm.dialect import dialect_of
from app.llm.parameter_types import MESSAGES, plain, problem_in
from app.llm.structured import OUTPUT_SCHEMA

#: Keys of llm_config that are not parameters of the API, or that clients get in another argument.
NOT_PARAMETERS = frozenset({"model", "provider", "max_tokens", "system"})
LIFETIMES = ("5m", "1h")
# Parameters that this module or the callers of clients handle for every protocol.
_KNOWN = frozenset(
    {"api", "n", "prompt_cache", "reasoning_effort", "stream", "system", "temperature"}
    | {OUTPUT_SCHEMA}
)
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_APIS = tuple(api for protocol in PROTOCOLS.values() for api in protocol.apis)
_OWN = "AgentChord fills it in"
_WITH_PROVIDER = "set it for the provider, in the configuration of the workers"
_RESERVED = {
    # Registered workflows are stored unchanged, so a workflow must never have a secret.
    "api_key": "keys come from the environment of the workers only",
    "api_key_env": _WITH_PROVIDER,
    "base_url": _WITH_PROVIDER,
    "credentials": _WITH_PROVIDER,
    "default_headers": _WITH_PROVIDER,
    "headers": _WITH_PROVIDER,
    "organization": _WITH_PROVIDER,
    "extra_body": "write its keys directly into llm_config",
    "extra_headers": _WITH_PROVIDER,
    "extra_query": "the request's path is fixed",
    "before_sent": _OWN,
    "messages": _OWN,
    "on_broken": _OWN,
    "on_text": _OWN,
    "prompt": "it is the agent's prompt_template",
    "timeout": "it is the agent's timeout",
    "timeout_s": "it is the agent's timeout",
    "tools": "they are the agent's tools",
}


class ParameterRefused(ValueError):
    """A parameter that cannot be sent; the message has the parameter's name and a remedy."""


def adapted(
    protocol: Protocol,
    model: str,
    params: Mapping[str, Any],
    *,
    max_tokens: int | None = None,
    tools: bool = False,
    server_tools: Sequence[ServerTool] = (),
    api: str | None = None,
    additions: Collection[str] = (),
) -> dict[str, Any]:
    """Return the parameters that are sent.

    Args:
        protocol: The protocol that the provider speaks.
        model: Model name.
        params: Parameters as in ``llm_config``, without ``model``, ``provider`` and ``max_tokens``;
            a parameter that is null counts as not given.
        max_tokens: Largest number of tokens to generate, or None if this number is not known yet.
        tools: Whether the request has tools.
        server_tools: The request's tools that run at the provider.
        api: Request form that the provider is configured for, or None. The parameter ``api`` takes
            precedence. Protocols with only one form ignore both values.
        additions: Parameters that the operator has added for the provider.

    Returns:
        Parameters of the provider's API, and ``prompt_cache``, which ``app.llm.prompt_cache``
        removes later.

    Raises:
        ParameterRefused: If the model, or this application, does not take or know a parameter, or
            if the provider does not have a tool.
    """
    given = {name: value for name, value in params.items() if value is not None}
    dialect = dialect_of(protocol)
    _refuse_reserved(dialect.refused, given)
    _refuse_unknown(protocol, given, additions)
    most = limits_of(model).max_output_tokens
    if max_tokens is not None and most is not None and max_tokens > most:
        raise ParameterRefused(
            f"model {model!r} generates at most {most:,} tokens: lower max_tokens ({max_tokens:,})"
        )
    asked = given.pop("api", api)
    if dialect.choose_api is not None:
        at_provider = bool(server_tools)
        given["api"] = dialect.choose_api(model, given, asked, tools, at_provider)
    problem = problem_in(given.get("api", MESSAGES), given, additions)
    if problem is not None:
        raise ParameterRefused(problem)
    for tool in server_tools:
        dialect.server_tool(model, tool)
    return dialect.adapt(model, given, max_tokens)


def unknown_parameters(
    protocol: Protocol, params: Mapping[str, Any], additions: Collection[str] = ()
) -> dict[str, str]:
    """Return the parameters that no code knows, each with the problem and the remedy.

    Args:
        protocol: The protocol that the provider speaks.
        params: Parameters as in ``llm_config``; a parameter that is null counts as not given.
        additions: Parameters that the operator has added for the provider.
    """
    dialect = dialect_of(protocol)
    known = {*_KNOWN, *dialect.known, *additions}
    refused = {*_RESERVED, *dialect.refused}
    return {
        str(name): (
            f"{shortened(name)} in llm_config is no known parameter of the protocol "
            f"{protocol.name}: remove it, or let the operator add it to the parameters of the "
            f"provider in the configuration{did_you_mean(plain(name), known | NOT_PARAMETERS)}"
        )
        for name, value in params.items()
        if value is not None and name not in known and name not in refused
    }


def _refuse_unknown(
    protocol: Protocol, given: Mapping[str, Any], additions: Collection[str]
) -> None:
    for problem in unknown_parameters(protocol, given, additions).values():
        raise ParameterRefused(problem)


def _refuse_reserved(refused: Mapping[str, str], given: Mapping[str, Any]) -> None:
    for name, reason in {**_RESERVED, **refused}.items():
        if name in given:
            raise ParameterRefused(f"{name} in llm_config is not supported: {reason}")
    if given.get("n", 1) != 1:
        raise ParameterRefused("n in llm_config is not supported: only one answer is read")
    if not isinstance(given.get("stream", False), bool):
        raise ParameterRefused(
            f"stream in llm_config is {shortened(given['stream'])}: use true or false"
        )
    if given.get("api", _APIS[0]) not in _APIS:
        raise ParameterRefused(
            f"api in llm_config is {shortened(given['api'])}: use one of {listed(_APIS)}"
        )
    cache = given.get("prompt_cache", False)
    if not isinstance(cache, bool) and cache not in LIFETIMES:
        raise ParameterRefused(
            f"prompt_cache in llm_config is {shortened(cache)}: use true, false, '5m' or '1h'"
        )
    effort = given.get("reasoning_effort", "none")
    if effort not in EFFORTS:
        raise ParameterRefused(
            f"reasoning_effort in llm_config is {shortened(effort)}: use one of {listed(EFFORTS)}"
        )

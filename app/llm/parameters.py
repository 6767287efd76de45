"""Parameters of a request as its model takes them: mapped, left out, or refused in clear words.

Clients ask before they send, ``enqueue`` asks before anything is stored. A parameter that is not
known here is sent as it is: the provider then decides. What only one protocol has is in its
``Dialect``. From the providers' reference pages (2026).
"""

from collections.abc import Mapping
from typing import Any

from app.domain.model_limits import limits_of
from app.domain.protocols import Protocol
from app.domain.suggestions import listed, shortened
from app.llm.dialect import dialect_of

#: Keys of llm_config that are not parameters of the provider's API, or are given otherwise.
NOT_PARAMETERS = frozenset({"model", "provider", "max_tokens", "system"})
LIFETIMES = ("5m", "1h")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_OWN = "AgentChord fills it in"
_WITH_PROVIDER = "it stands with the provider, in the configuration of the workers"
_RESERVED = {
    # Workflows are stored as they are registered: a secret must never be in one.
    "api_key": "keys come from the environment of the workers only",
    "api_key_env": _WITH_PROVIDER,
    "base_url": _WITH_PROVIDER,
    "default_headers": _WITH_PROVIDER,
    "headers": _WITH_PROVIDER,
    "organization": _WITH_PROVIDER,
    "extra_body": "write its keys into llm_config themselves",
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
    """A parameter that cannot be sent; the message says which, and what to do."""


def adapted(
    protocol: Protocol, model: str, params: Mapping[str, Any], *, max_tokens: int | None = None
) -> dict[str, Any]:
    """Return the parameters that are sent.

    Args:
        protocol: The protocol that the provider speaks.
        model: Model name.
        params: As in ``llm_config``, without ``model``, ``provider`` and ``max_tokens``; a null
            counts as not given.
        max_tokens: Most tokens to generate, or None if that is not known yet.

    Returns:
        Parameters of the provider's API; ``prompt_cache`` is left in, see ``app.llm.prompt_cache``.

    Raises:
        ParameterRefused: For what the model, or this application, does not take.
    """
    given = {name: value for name, value in params.items() if value is not None}
    dialect = dialect_of(protocol)
    _refuse_reserved(dialect.refused, given)
    most = limits_of(model).max_output_tokens
    if max_tokens is not None and most is not None and max_tokens > most:
        raise ParameterRefused(
            f"model {model!r} generates at most {most:,} tokens: lower max_tokens ({max_tokens:,})"
        )
    return dialect.adapt(model, given, max_tokens)


def _refuse_reserved(refused: Mapping[str, str], given: Mapping[str, Any]) -> None:
    for name, reason in {**_RESERVED, **refused}.items():
        if name in given:
            raise ParameterRefused(f"{name} in llm_config is not supported: {reason}")
    if given.get("n", 1) != 1:
        raise ParameterRefused("n in llm_config is not supported: one answer is read")
    if not isinstance(given.get("stream", False), bool):
        raise ParameterRefused(
            f"stream in llm_config is {shortened(given['stream'])}: use true or false"
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

"""Parameters of a request as its model takes them: mapped, left out, or refused in clear words.

Clients ask before they send, ``enqueue`` asks before anything is stored. What is not known here
is sent as it is: the provider then decides. From the providers' reference pages (2026).
"""

from collections.abc import Mapping
from typing import Any

from app.domain.model_limits import limits_of
from app.domain.providers import Protocol
from app.domain.suggestions import listed, shortened
from app.llm.models import (
    anthropic_samples,
    claude_version,
    is_of_openai,
    is_openai_reasoning,
    openai_samples,
)

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
_REFUSED: dict[Protocol, dict[str, str]] = {
    "openai": {
        "audio": "only text is priced",
        "function_call": "give the agent tools, and tool_choice",
        "functions": "they are the agent's tools",
        "max_completion_tokens": "give max_tokens; it is sent under the name the model takes",
        "modalities": "only text is priced",
        "web_search_options": "searches are billed apart and have no price here",
    },
    "anthropic": {
        "container": "code execution is billed apart and has no price here",
        "mcp_servers": "tools run in the workers",
    },
}
_SAMPLING = ("temperature", "top_p", "top_k")
# What only the other protocol has: refused for models that are known to be its provider's own.
_OPENAI_LACKS = {
    "output_config": "give reasoning_effort",
    "thinking": "give reasoning_effort",
    "top_k": "remove it",
}
_ANTHROPIC_LACKS = (
    *("frequency_penalty", "logit_bias", "logprobs", "parallel_tool_calls", "presence_penalty"),
    *("seed", "top_logprobs", "verbosity"),
)
_LEAST_BUDGET = 1024
_FIRST_ADAPTIVE = (4, 6)
_LAST_WITH_BUDGET = (4, 6)


class ParameterRefused(ValueError):
    """A parameter that cannot be sent; the message says which, and what to do."""


def adapted(
    protocol: Protocol, model: str, params: Mapping[str, Any], *, max_tokens: int | None = None
) -> dict[str, Any]:
    """The parameters that are sent.

    Args:
        protocol: What the provider speaks.
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
    _refuse_reserved(protocol, given)
    most = limits_of(model).max_output_tokens
    if max_tokens is not None and most is not None and max_tokens > most:
        raise ParameterRefused(
            f"model {model!r} generates at most {most:,} tokens: lower max_tokens ({max_tokens:,})"
        )
    if protocol == "openai":
        return _for_openai(model, given)
    return _for_anthropic(model, given, max_tokens)


def _refuse_reserved(protocol: Protocol, given: Mapping[str, Any]) -> None:
    for name, reason in (_RESERVED | _REFUSED[protocol]).items():
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


def _for_openai(model: str, params: dict[str, Any]) -> dict[str, Any]:
    effort = params.get("reasoning_effort")
    if is_of_openai(model):
        for name in _OPENAI_LACKS.keys() & params.keys():
            raise ParameterRefused(f"model {model!r} takes no {name}: {_OPENAI_LACKS[name]}")
        if effort not in (None, "none") and not is_openai_reasoning(model):
            raise ParameterRefused(
                f"model {model!r} does not reason: remove reasoning_effort from llm_config"
            )
        if effort == "none" and not is_openai_reasoning(model):
            del params["reasoning_effort"]
    if openai_samples(model, effort):
        return params
    for name in ("temperature", "top_p"):
        # 1 is what these models do anyway, but some refuse to be told.
        if params.pop(name, 1) != 1:
            raise ParameterRefused(
                f"model {model!r} reasons and takes no {name}: remove it from llm_config"
            )
    return params


def _for_anthropic(model: str, params: dict[str, Any], max_tokens: int | None) -> dict[str, Any]:
    for name in _ANTHROPIC_LACKS:
        if name in params:
            raise ParameterRefused(
                f"{name} is no parameter of Anthropic's messages: remove it from llm_config"
            )
    for name in ("n", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"):
        params.pop(name, None)  # which ask for what is so anyway, or mean nothing here
    if (stop := params.pop("stop", None)) is not None:
        params.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    _map_effort(model, params)
    _check_thinking(model, params, max_tokens)
    _check_sampling(model, params)
    return params


def _map_effort(model: str, params: dict[str, Any]) -> None:
    """OpenAI's reasoning_effort in Anthropic's words."""
    effort = params.pop("reasoning_effort", None)
    if effort is None:
        return
    if effort == "none":
        params.setdefault("thinking", {"type": "disabled"})
        return
    version = claude_version(model)
    if version is not None and version < _FIRST_ADAPTIVE and "opus-4-5" not in model:
        raise ParameterRefused(
            f"model {model!r} takes no reasoning_effort: give it "
            '"thinking": {"type": "enabled", "budget_tokens": 4000} in its place'
        )
    if version is None or version >= _FIRST_ADAPTIVE:
        params.setdefault("thinking", {"type": "adaptive"})
    level = "low" if effort == "minimal" else effort
    params["output_config"] = {"effort": level, **(params.get("output_config") or {})}


def _check_thinking(model: str, params: Mapping[str, Any], max_tokens: int | None) -> None:
    thinking = params.get("thinking")
    if thinking is None:
        return
    if not isinstance(thinking, Mapping):
        raise ParameterRefused(
            f'thinking in llm_config is {shortened(thinking)}: use {{"type": "adaptive"}}, '
            '{"type": "disabled"}, or {"type": "enabled", "budget_tokens": 4000}'
        )
    version, kind = claude_version(model), thinking.get("type")
    if version is not None and kind == "enabled" and version > _LAST_WITH_BUDGET:
        raise ParameterRefused(
            f"model {model!r} takes no thinking budget: give reasoning_effort, "
            'or "thinking": {"type": "adaptive"}'
        )
    if version is not None and kind == "adaptive" and version < _FIRST_ADAPTIVE:
        raise ParameterRefused(
            f"model {model!r} does not think adaptively: give "
            '"thinking": {"type": "enabled", "budget_tokens": 4000}'
        )
    if kind == "enabled":
        _check_budget(thinking.get("budget_tokens"), max_tokens)


def _check_budget(budget: object, max_tokens: int | None) -> None:
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < _LEAST_BUDGET:
        raise ParameterRefused(
            f"thinking.budget_tokens in llm_config is {shortened(budget)}: "
            f"give a whole number of at least {_LEAST_BUDGET:,}"
        )
    if max_tokens is not None and budget >= max_tokens:
        raise ParameterRefused(
            f"thinking.budget_tokens in llm_config is {budget:,}, and max_tokens, which it is a "
            f"part of, {max_tokens:,}: raise max_tokens above it"
        )


def _check_sampling(model: str, params: dict[str, Any]) -> None:
    thinks = (params.get("thinking") or {}).get("type") in ("adaptive", "enabled")
    for name in _SAMPLING:
        if name not in params:
            continue
        if anthropic_samples(model) and not thinks:
            if name == "temperature" and params[name] > 1:
                raise ParameterRefused(
                    f"model {model!r} takes a temperature from 0 to 1, not {params[name]:g}"
                )
        # 1 is what these models do anyway, but they refuse to be told.
        elif params.pop(name) != 1 or name == "top_k":
            while_thinking = " while it thinks" if anthropic_samples(model) else ""
            raise ParameterRefused(
                f"model {model!r} takes no {name}{while_thinking}: remove it from llm_config"
            )

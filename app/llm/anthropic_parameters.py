"""Parameters of Anthropic's messages; some are translated from parameters of OpenAI."""

from collections.abc import Mapping
from typing import Any

from app.domain.claude import claude_version
from app.domain.suggestions import shortened
from app.llm.models import anthropic_samples
from app.llm.parameters import ParameterRefused

#: The API's parameters, and parameters of OpenAI that are translated.
KNOWN = frozenset(
    {"cache_control", "compaction", "context_management", "inference_geo", "metadata"}
    | {"output_config", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    | {"service_tier", "speed", "stop", "stop_sequences", "thinking", "tool_choice"}
    | {"top_k", "top_p"}
)
#: The API's parameters that are not sent, each with the reason.
REFUSED = {
    "container": 'AgentChord fills it in; give the agent the tool {"server": "code_execution"}',
    "fallbacks": "other models have other prices; give the agent fallbacks",
    "mcp_servers": "tools run in the workers",
    **dict.fromkeys(
        (
            *("frequency_penalty", "logit_bias", "logprobs", "parallel_tool_calls"),
            *("presence_penalty", "seed", "top_logprobs", "verbosity"),
        ),
        "it is not a parameter of Anthropic's messages; remove it",
    ),
}
SAMPLING = ("temperature", "top_p", "top_k")
_LEAST_BUDGET = 1024
_FIRST_ADAPTIVE = (4, 6)
_LAST_WITH_BUDGET = (4, 6)


def adapt_anthropic(model: str, params: dict[str, Any], max_tokens: int | None) -> dict[str, Any]:
    """Return the parameters that a model behind this protocol takes; see ``Dialect.adapt``."""
    for name in ("n", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"):
        params.pop(name, None)  # these ask for the default, or have no effect with this protocol
    if (stop := params.pop("stop", None)) is not None:
        params.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    _map_effort(model, params)
    _check_thinking(model, params, max_tokens)
    _check_sampling(model, params)
    return params


def _map_effort(model: str, params: dict[str, Any]) -> None:
    """Translate OpenAI's reasoning_effort into Anthropic's parameters."""
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
            f"thinking.budget_tokens in llm_config is {budget:,}, but max_tokens, which includes "
            f"the budget, is only {max_tokens:,}: raise max_tokens above the budget"
        )


def _check_sampling(model: str, params: dict[str, Any]) -> None:
    thinks = (params.get("thinking") or {}).get("type") in ("adaptive", "enabled")
    for name in SAMPLING:
        if name not in params:
            continue
        if anthropic_samples(model) and not thinks:
            if name == "temperature" and params[name] > 1:
                raise ParameterRefused(
                    f"model {model!r} takes a temperature from 0 to 1, not {params[name]:g}"
                )
        # 1 is the default of these models, but the models refuse the parameter.
        elif params.pop(name) != 1 or name == "top_k":
            while_thinking = " while it thinks" if anthropic_samples(model) else ""
            raise ParameterRefused(
                f"model {model!r} takes no {name}{while_thinking}: remove it from llm_config"
            )

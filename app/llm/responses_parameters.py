"""Parameters of OpenAI's Responses API; they are written like parameters of chat completions."""

from collections.abc import Mapping
from typing import Any

from app.domain.suggestions import shortened
from app.llm.openai_parameters import adapt_to_model
from app.llm.parameters import ParameterRefused

#: The Responses API refuses a smaller limit.
LEAST_MAX_TOKENS = 16
#: Parameters of chat completions that the Responses API does not have.
LACKED = (
    *("frequency_penalty", "logit_bias", "logprobs", "prediction", "presence_penalty", "seed"),
    "stop",
)


def adapt_responses(model: str, params: dict[str, Any], max_tokens: int | None) -> dict[str, Any]:
    """Return the parameters in the form of the Responses API; see ``Dialect.adapt``."""
    for name in LACKED:
        if name in params:
            raise ParameterRefused(
                f"{name} is not a parameter of OpenAI's Responses API, which this request uses: "
                "remove it from llm_config"
            )
    if max_tokens is not None and max_tokens < LEAST_MAX_TOKENS:
        raise ParameterRefused(
            f"OpenAI's Responses API takes no max_tokens below {LEAST_MAX_TOKENS} ({max_tokens}): "
            "raise max_tokens, or the cost_limit that allows no more"
        )
    reasoning, text = dict(_part(params, "reasoning")), dict(_part(params, "text"))
    if (effort := reasoning.pop("effort", None)) is not None:
        params.setdefault("reasoning_effort", effort)
    params = adapt_to_model(model, params)
    if effort := params.pop("reasoning_effort", None):
        reasoning["effort"] = effort
    if (verbosity := params.pop("verbosity", None)) is not None:
        text.setdefault("verbosity", verbosity)
    if (format_ := params.pop("response_format", None)) is not None:
        text.setdefault("format", text_format(format_))
    if choice := params.get("tool_choice"):
        params["tool_choice"] = _tool_choice(choice)
    params.pop("n", None)
    options = dict(_part(params, "stream_options"))
    options.pop("include_usage", None)  # the last event always has the usage
    parts = {"reasoning": reasoning, "text": text, "stream_options": options}
    return params | {name: part for name, part in parts.items() if part}


def effort_of(params: Mapping[str, Any]) -> object:
    """Return the reasoning effort of parameters in either request form, or None."""
    reasoning = params.get("reasoning")
    inner = reasoning.get("effort") if isinstance(reasoning, Mapping) else None
    return params.get("reasoning_effort", inner)


def text_format(response_format: Any) -> Any:
    """Convert ``response_format`` of chat completions to ``text.format``."""
    if not isinstance(response_format, Mapping) or "json_schema" not in response_format:
        return response_format
    named = response_format["json_schema"]
    rest = {key: value for key, value in response_format.items() if key != "json_schema"}
    return {**rest, **(named if isinstance(named, Mapping) else {})}


def _part(params: dict[str, Any], name: str) -> Mapping[str, Any]:
    given = params.pop(name, None)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ParameterRefused(f"{name} in llm_config is {shortened(given)}: give an object")
    return given


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, Mapping) and isinstance(choice.get("function"), Mapping):
        return {"type": "function", "name": choice["function"].get("name")}
    return choice

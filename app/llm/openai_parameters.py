"""Parameters of OpenAI's protocol, for the models of OpenAI and for other models.

The rules here apply to both request forms. ``app.llm.responses_parameters`` has the rules that
apply only to the Responses API.
"""

from typing import Any

from app.llm.models import (
    is_of_openai,
    is_openai_reasoning,
    openai_always_reasons,
    openai_samples,
)
from app.llm.parameters import ParameterRefused

#: The parameters of both request forms, and parameters of compatible servers that only change the
#: sampling or the reasoning of a model.
KNOWN = frozenset(
    {"context_management", "frequency_penalty", "include", "logit_bias", "logprobs"}
    | {"max_tool_calls", "metadata", "moderation", "parallel_tool_calls", "prediction"}
    | {"presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    | {"reasoning", "response_format", "safety_identifier", "seed", "service_tier", "stop"}
    | {"store", "stream_options", "text", "tool_choice", "top_logprobs", "top_p", "truncation"}
    | {"user", "verbosity"}
    # Of compatible servers.
    | {"chat_template_kwargs", "enable_thinking", "ignore_eos", "include_reasoning", "min_p"}
    | {"min_tokens", "output_config", "random_seed", "reasoning_format", "reasoning_split"}
    | {"repetition_penalty", "safe_prompt", "stop_token_ids", "thinking", "thinking_budget"}
    | {"thinking_mode", "top_a", "top_k", "typical_p"}
)
#: The API's parameters that are not sent, each with the reason.
REFUSED = {
    "audio": "only text is priced",
    "background": "an answer that comes later than its request has no hold, no limit and no place "
    "in the ledger; for cheap work that may wait, give service_tier 'flex'",
    "conversation": "every request has its whole conversation",
    "function_call": "give the agent tools and tool_choice",
    "functions": "they are the agent's tools",
    "input": "AgentChord fills it in",
    "instructions": "give system",
    "max_completion_tokens": "give max_tokens; it is sent under the name the model takes",
    "max_output_tokens": "give max_tokens; it is sent under the name the model takes",
    "modalities": "only text is priced",
    **dict.fromkeys(
        # Names of OpenAI, of xAI, of OpenRouter, and of Qwen.
        ("web_search_options", "search_parameters", "plugins", "enable_search"),
        "a search of the provider has its price as a tool: give the agent the tool "
        '{"server": "web_search"}',
    ),
    "previous_response_id": "every request has its whole conversation",
}
# Parameters of other APIs; if a model is known to be OpenAI's own, these parameters are refused.
_LACKS = {
    "output_config": "give reasoning_effort",
    "thinking": "give reasoning_effort",
    "top_k": "remove it",
}


def adapt_to_model(model: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a model behind this protocol takes; see ``Dialect.adapt``."""
    effort = params.get("reasoning_effort")
    if is_of_openai(model):
        for name in _LACKS.keys() & params.keys():
            raise ParameterRefused(f"model {model!r} takes no {name}: {_LACKS[name]}")
        if effort not in (None, "none") and not is_openai_reasoning(model):
            raise ParameterRefused(
                f"model {model!r} does not reason: remove reasoning_effort from llm_config"
            )
        if effort == "none" and openai_always_reasons(model):
            raise ParameterRefused(
                f"model {model!r} always reasons: give another reasoning_effort, or remove it"
            )
        if effort == "none" and not is_openai_reasoning(model):
            del params["reasoning_effort"]
    if openai_samples(model, effort):
        return params
    for name in ("temperature", "top_p"):
        # 1 is the default of these models, but some of the models refuse the parameter.
        if params.pop(name, 1) != 1:
            raise ParameterRefused(
                f"model {model!r} reasons and takes no {name}: remove it from llm_config"
            )
    return params

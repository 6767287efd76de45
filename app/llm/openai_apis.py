"""The two request forms of OpenAI's protocol: chat completions, and the Responses API.

Both forms belong to one provider, with one key, one set of limits and one price list. Therefore,
the form is chosen anew for each request.
"""

from collections.abc import Mapping
from typing import Any

from app.llm.models import needs_responses, openai_always_reasons
from app.llm.openai_parameters import adapt_to_model
from app.llm.parameters import ParameterRefused
from app.llm.responses_parameters import adapt_responses, effort_of

CHAT, RESPONSES = "chat", "responses"


def choose_api(
    model: str,
    params: Mapping[str, Any],
    asked: str | None,
    tools: bool,
    at_provider: bool = False,
) -> str:
    """Return the request form of a request; see ``Dialect.choose_api``.

    If neither the agent nor its provider asks for a form, the form is chat completions, which every
    server of this protocol has. The exceptions are requests that OpenAI serves only in its
    Responses API, and requests with tools that run at the provider, because chat completions do not
    have these tools.
    """
    if at_provider and asked == CHAT:
        raise ParameterRefused(
            "chat completions have no tools that run at the provider: set api to 'responses' in "
            "llm_config (or remove api, also under providers in the configuration)"
        )
    if at_provider:
        return RESPONSES
    needed = needs_responses(model, effort_of(params), tools=tools)
    if asked is None:
        return RESPONSES if needed else CHAT
    if asked == CHAT and needed:
        raise ParameterRefused(_refusal(model, tools))
    return asked


def _refusal(model: str, tools: bool) -> str:
    served = "tools while it reasons" if tools else "requests"
    silenced = tools and not needs_responses(model, "none", tools=tools)
    without = silenced and not openai_always_reasons(model)
    return (
        f"model {model!r} takes {served} only in the Responses API: set api to 'responses' in "
        "llm_config (or remove api, also under providers in the configuration)"
        + (", or set reasoning_effort to 'none'" if without else "")
    )


def adapt_openai(model: str, params: dict[str, Any], max_tokens: int | None) -> dict[str, Any]:
    """Return the parameters of the chosen request form; see ``Dialect.adapt``."""
    if params.pop("api") == RESPONSES:
        return adapt_responses(model, params, max_tokens)
    return adapt_to_model(model, params)

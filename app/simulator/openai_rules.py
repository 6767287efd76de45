"""The requests that OpenAI refuses because of the model, for both request forms of OpenAI.

The rules and the texts come from OpenAI's reference pages and from answers that users have quoted
(2026). The rules are written here a second time, so that this copy checks the application's own
rules.
"""

import re
from collections.abc import Mapping
from typing import Any

from app.simulator.chat import Refusal
from app.simulator.wire import object_in

_REASONS = re.compile(r"^(?:o\d|gpt-(?:[5-9]|[1-9]\d)(?!\d))")
_REASONS_ON_REQUEST = re.compile(r"^gpt-5\.[1-4](?!\d)")
_ALWAYS_REASONS = re.compile(r"^(?:o\d|gpt-5(?!\.|-chat)|gpt-6-astra|gpt-6\.1-sol)")
# With tools, these models reason only in the Responses API.
_TOOLS_ELSEWHERE = re.compile(r"^gpt-(?:5\.[5-9]|[6-9]|[1-9]\d)(?!\d)(?!.*-chat)")
_EFFORT_ELSEWHERE = re.compile(r"^gpt-5\.[2-4](?!\d)(?!.*-chat)")
_RESPONSES_ONLY = re.compile(r"^(?:o\d-pro|gpt-5-pro|gpt-5\.[5-9]-pro|gpt-5(?:\.\d)?-codex)")
_SAMPLING = ("temperature", "top_p")
# Parameters of chat completions, with their other names in the Responses API; None if the Responses
# API does not have the parameter.
_MOVED = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "frequency_penalty": None,
    "logit_bias": None,
    "logprobs": None,
    "n": None,
    "presence_penalty": None,
    "seed": None,
    "stop": None,
}
_NOT_IN_CHAT = ("background", "include", "input", "instructions", "max_output_tokens", "text")
_LEAST_OUTPUT_TOKENS = 16


def reasons(model: str, effort: object) -> bool:
    """Return whether a model of OpenAI reasons in a request with this effort."""
    if _REASONS.search(model) is None or "-chat" in model or effort == "none":
        return False
    return effort is not None or _REASONS_ON_REQUEST.search(model) is None


def check_chat(body: Mapping[str, Any], model: str) -> None:
    """Check a chat completion.

    Raises:
        Refusal: If OpenAI refuses such a request for this model.
    """
    effort = body.get("reasoning_effort")
    if _RESPONSES_ONLY.search(model):
        raise Refusal(
            404,
            "This model is only supported in v1/responses and not in v1/chat/completions.",
            code="model_not_found",
            param="model",
        )
    for name in _NOT_IN_CHAT:
        if name in body:
            raise _unknown(name)
    if _REASONS.search(model) and body.get("max_tokens") is not None:
        raise _unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
    _check_effort(model, effort, "reasoning_effort")
    set_ = effort not in (None, "none")
    if body.get("tools") and (
        (_TOOLS_ELSEWHERE.search(model) and effort != "none")
        or (_EFFORT_ELSEWHERE.search(model) and set_)
    ):
        raise Refusal(
            400,
            f"Function tools with reasoning_effort are not supported for {model} in "
            "/v1/chat/completions. Please use /v1/responses or set reasoning_effort to 'none'.",
            param="reasoning_effort",
        )
    _check_sampling(body, model, effort)


def check_responses(body: Mapping[str, Any], model: str) -> None:
    """Check a request of the Responses API.

    Raises:
        Refusal: If OpenAI refuses such a request for this model.
    """
    for name, new in _MOVED.items():
        if name not in body:
            continue
        if new is None:
            raise _unknown(name)
        raise Refusal(
            400,
            f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to "
            f"'{new}'. Try again with the new parameter.",
            code="unsupported_parameter",
            param=name,
        )
    effort = object_in(body, "reasoning").get("effort")
    _check_effort(model, effort, "reasoning.effort")
    _check_sampling(body, model, effort)
    if "reasoning.encrypted_content" in (body.get("include") or ()) and not _REASONS.search(model):
        raise Refusal(400, "Encrypted content is not supported with this model.", param="include")
    most = body.get("max_output_tokens")
    if isinstance(most, int) and most < _LEAST_OUTPUT_TOKENS:
        raise Refusal(
            400,
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= "
            f"{_LEAST_OUTPUT_TOKENS}, but got {most} instead.",
            code="integer_below_min_value",
            param="max_output_tokens",
        )
    for name in ("background", "conversation", "previous_response_id"):
        if body.get(name):
            raise Refusal(400, f"The simulator keeps no responses: remove '{name}'.", param=name)


def _check_effort(model: str, effort: object, name: str) -> None:
    if effort is None:
        return
    if not _REASONS.search(model):
        raise _unsupported(name)
    if effort == "none" and _ALWAYS_REASONS.search(model):
        raise Refusal(
            400,
            f"Unsupported value: '{name}' does not support 'none' with this model.",
            code="unsupported_value",
            param=name,
        )


def _check_sampling(body: Mapping[str, Any], model: str, effort: object) -> None:
    if not reasons(model, effort):
        return
    for name in _SAMPLING:
        if body.get(name) is not None:
            raise _unsupported(name)


def _unsupported(name: str, remedy: str = "") -> Refusal:
    return Refusal(
        400,
        f"Unsupported parameter: '{name}' is not supported with this model.{remedy}",
        code="unsupported_parameter",
        param=name,
    )


def _unknown(name: str) -> Refusal:
    return Refusal(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)

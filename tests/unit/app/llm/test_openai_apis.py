"""The request form of a request to OpenAI; the simulator's rules are the other witness."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.protocols import PROTOCOLS
from app.llm.models import is_openai_reasoning
from app.llm.openai_apis import CHAT, RESPONSES, choose_api
from app.llm.parameters import EFFORTS, ParameterRefused, adapted
from app.simulator.openai_rules import check_chat, check_responses

OPENAI = PROTOCOLS["openai"]
MODELS = (
    *("gpt-3.5-turbo", "gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "chatgpt-4o-latest"),
    *("gpt-5", "gpt-5-mini", "gpt-5.1", "gpt-5.2", "gpt-5.2-chat-latest", "gpt-5.3-chat-latest"),
    *("gpt-5.4", "gpt-5.4-mini-2026-03-17", "gpt-5.5", "gpt-5.5-2026-04-23", "gpt-5.6-terra"),
    *("gpt-6-luna", "gpt-6.1-terra", "gpt-10", "o1", "o3", "o3-mini", "o4-mini"),
    *("o3-pro", "gpt-5-pro", "gpt-5.5-pro", "gpt-5-codex", "gpt-5.1-codex-max"),
)


@pytest.mark.parametrize(
    ("model", "params", "tools", "form"),
    [
        ("gpt-5.5", {}, True, RESPONSES),
        ("gpt-5.6-terra", {"reasoning_effort": "low"}, True, RESPONSES),
        ("gpt-6.1-sol", {}, True, RESPONSES),
        ("gpt-5.5", {"reasoning_effort": "none"}, True, CHAT),
        ("gpt-5.5", {}, False, CHAT),
        ("gpt-5.4", {}, True, CHAT),
        ("gpt-5.4", {"reasoning_effort": "high"}, True, RESPONSES),
        ("gpt-5.4", {"reasoning": {"effort": "high"}}, True, RESPONSES),
        ("gpt-5-mini", {"reasoning_effort": "low"}, True, CHAT),
        ("gpt-5.5-pro", {}, False, RESPONSES),
        ("gpt-4o", {}, True, CHAT),
        ("llama-3-70b", {}, True, CHAT),
        ("openai/gpt-5.6-terra", {}, True, CHAT),  # a gateway translates for itself
    ],
)
def test_the_model_and_its_tools_choose_the_form(
    model: str, params: dict[str, Any], tools: bool, form: str
) -> None:
    assert choose_api(model, params, None, tools) == form


def test_a_form_that_is_asked_for_is_used() -> None:
    assert choose_api("gpt-4o", {}, RESPONSES, False) == RESPONSES
    assert choose_api("llama-3-70b", {}, RESPONSES, True) == RESPONSES
    assert choose_api("gpt-6-sol", {}, CHAT, False) == CHAT
    assert choose_api("gpt-5.5", {"reasoning_effort": "none"}, CHAT, True) == CHAT


@pytest.mark.parametrize(
    ("model", "tools", "remedy"),
    [
        ("gpt-5.5", True, "set api to 'responses' in llm_config .* or set reasoning_effort to"),
        ("o3-pro", False, r"takes requests only in the Responses API: set api to 'responses'"),
    ],
)
def test_chat_is_refused_where_openai_would_refuse_it(model: str, tools: bool, remedy: str) -> None:
    with pytest.raises(ParameterRefused, match=remedy):
        choose_api(model, {}, CHAT, tools)


@given(model=st.sampled_from(MODELS), asked=st.sampled_from((None, RESPONSES)))
def test_tools_of_the_provider_run_in_the_responses_api_alone(
    model: str, asked: str | None
) -> None:
    assert choose_api(model, {}, asked, True, at_provider=True) == RESPONSES
    with pytest.raises(ParameterRefused, match="set api to 'responses'"):
        choose_api(model, {}, CHAT, True, at_provider=True)


@given(
    model=st.sampled_from(MODELS),
    effort=st.sampled_from((None, *EFFORTS)),
    tools=st.booleans(),
    asked=st.sampled_from((None, CHAT, RESPONSES)),
    temperature=st.sampled_from((None, 0.2, 1)),
)
def test_what_is_accepted_goes_where_openai_takes_it(
    model: str, effort: str | None, tools: bool, asked: str | None, temperature: float | None
) -> None:
    params = {"reasoning_effort": effort, "temperature": temperature}
    try:
        api = choose_api(model, params, asked, tools)
        sent = adapted(OPENAI, model, params, max_tokens=100, tools=tools, api=api)
    except ParameterRefused:
        return
    body: dict[str, Any] = {"model": model, **sent} | ({"tools": [{}]} if tools else {})

    if api == RESPONSES:
        check_responses(body | {"input": "x", "max_output_tokens": 100}, model)
    else:
        limit = "max_completion_tokens" if is_openai_reasoning(model) else "max_tokens"
        check_chat(body | {"messages": [], limit: 100}, model)


def test_a_protocol_with_one_form_ignores_the_choice() -> None:
    assert adapted(PROTOCOLS["anthropic"], "claude-sonnet-5", {"api": "responses"}) == {}

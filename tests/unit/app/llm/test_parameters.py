"""The parameters that models take, by their names alone."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.protocols import PROTOCOLS
from app.llm.dialect import dialect_of
from app.llm.parameters import ParameterRefused, adapted
from app.llm.prompt_cache import ask_anthropic, ask_openai

Params = dict[str, Any]
THINKS = {"type": "adaptive"}
BUDGET = {"type": "enabled", "budget_tokens": 2000}


@pytest.mark.parametrize(
    ("protocol", "model", "given", "sent"),
    [
        ("openai", "gpt-4o", {"temperature": 0.2, "seed": 1}, {"temperature": 0.2, "seed": 1}),
        ("openai", "gpt-4o", {"reasoning_effort": "none"}, {}),
        ("openai", "gpt-4o", {"temperature": None, "n": 1}, {"n": 1}),
        ("openai", "gpt-5", {"temperature": 1, "top_p": 1}, {}),
        ("openai", "llama-3", {"top_k": 5, "thinking": True}, {"top_k": 5, "thinking": True}),
        ("anthropic", "claude-sonnet-4-5", {"temperature": 0.2}, {"temperature": 0.2}),
        ("anthropic", "claude-opus-5", {"temperature": 1}, {}),
        ("anthropic", "claude-opus-5", {"stop": "END"}, {"stop_sequences": ["END"]}),
        ("anthropic", "claude-opus-5", {"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
        (
            "anthropic",
            "claude-opus-5",
            {"reasoning_effort": "minimal"},
            {"thinking": THINKS, "output_config": {"effort": "low"}},
        ),
        (
            "anthropic",
            "claude-opus-4-5",
            {"reasoning_effort": "high"},
            {"output_config": {"effort": "high"}},
        ),
        (
            "anthropic",
            "claude-opus-5",
            {"reasoning_effort": "none"},
            {"thinking": {"type": "disabled"}},
        ),
        ("anthropic", "claude-sonnet-4-5", {"thinking": BUDGET}, {"thinking": BUDGET}),
        ("anthropic", "claude-opus-5", {"n": 1, "prompt_cache_key": "k"}, {}),
        ("anthropic", "glm-4", {"thinking": BUDGET}, {"thinking": BUDGET}),
    ],
)
def test_parameters_are_mapped_to_what_the_model_takes(
    protocol: str, model: str, given: Params, sent: Params
) -> None:
    assert adapted(PROTOCOLS[protocol], model, given, max_tokens=4000) == sent


@pytest.mark.parametrize(
    ("protocol", "model", "given", "complaint"),
    [
        ("openai", "gpt-5", {"temperature": 0.2}, "takes no temperature: remove it"),
        ("openai", "gpt-4o", {"api_key": "sk-x"}, "keys come from the environment"),
        ("anthropic", "claude-opus-5", {"base_url": "http://x"}, "set it for the provider"),
        ("openai", "gpt-4o", {"credentials": "os:getcwd"}, "set it for the provider"),
        ("openai", "gpt-4o", {"reasoning_effort": "low"}, "does not reason"),
        ("openai", "gpt-5", {"reasoning_effort": "hard"}, "use one of 'none', 'minimal'"),
        ("openai", "gpt-5", {"thinking": BUDGET}, "takes no thinking: give reasoning_effort"),
        ("openai", "openai/gpt-4o", {"top_k": 3}, "takes no top_k"),
        ("openai", "any", {"messages": []}, "messages in llm_config is not supported"),
        ("openai", "any", {"tools": []}, "they are the agent's tools"),
        ("openai", "any", {"before_sent": 1}, "AgentChord fills it in"),
        ("openai", "any", {"timeout": 5}, "it is the agent's timeout"),
        ("openai", "any", {"extra_body": {}}, "write its keys directly into llm_config"),
        ("openai", "any", {"n": 2}, "one answer is read"),
        ("openai", "any", {"stream": "yes"}, "use true or false"),
        ("openai", "any", {"prompt_cache": "1d"}, "use true, false, '5m' or '1h'"),
        ("anthropic", "claude-opus-5", {"temperature": 0.2}, "takes no temperature: remove"),
        ("anthropic", "claude-sonnet-4-5", {"temperature": 1.5}, "from 0 to 1, not 1.5"),
        (
            "anthropic",
            "claude-sonnet-4-5",
            {"temperature": 0.5, "thinking": BUDGET},
            "takes no temperature while it thinks",
        ),
        ("anthropic", "claude-opus-5", {"thinking": BUDGET}, "takes no thinking budget"),
        ("anthropic", "claude-sonnet-4-5", {"thinking": THINKS}, "does not think adaptively"),
        (
            "anthropic",
            "claude-sonnet-4-5",
            {"thinking": BUDGET | {"budget_tokens": 4000}},
            "is 4,000, but max_tokens, which includes the budget, is only 4,000: raise",
        ),
        ("anthropic", "any", {"thinking": BUDGET | {"budget_tokens": 9}}, "at least 1,024"),
        ("anthropic", "any", {"thinking": "on"}, "whose type is one of 'enabled'"),
        ("anthropic", "claude-haiku-4-5", {"reasoning_effort": "low"}, "takes no reasoning_effort"),
        ("anthropic", "claude-opus-5", {"seed": 1}, "not a parameter of Anthropic's messages"),
        ("anthropic", "claude-3-haiku", {}, "generates at most 4,096 tokens: lower max_tokens"),
    ],
)
def test_what_a_model_does_not_take_is_refused_with_the_remedy(
    protocol: str, model: str, given: Params, complaint: str
) -> None:
    most = 5000 if model == "claude-3-haiku" else 4000

    with pytest.raises(ParameterRefused) as refused:
        adapted(PROTOCOLS[protocol], model, given, max_tokens=most)

    assert complaint in str(refused.value)


KNOWN = {name: dialect_of(protocol).known for name, protocol in PROTOCOLS.items()}
#: What gateways read: other models, more answers, plugins, other servers.
DANGEROUS = (
    *("models", "plugins", "fallbacks", "best_of", "options", "api_base", "route", "n_best"),
    *("model_list", "custom_llm_provider", "web_search", "transforms", "model_name", "deployment"),
    *("betas", "mock_response", "extra_body", "mcp_servers", "search_parameters", "num_choices"),
)


def spellings(name: str) -> list[str]:
    first, *rest = name.split("_")
    camel = first + "".join(part.title() for part in rest)
    return [name, name.upper(), name.title(), camel, name.replace("_", "-"), f" {name}", f"{name} "]


@given(
    st.sampled_from(sorted(PROTOCOLS)),
    st.sampled_from(["m", "gpt-5", "openai/gpt-4o", "claude-opus-5"]),
    st.sampled_from(DANGEROUS).flatmap(lambda name: st.sampled_from(spellings(name)))
    | st.text(max_size=12)
    | st.sampled_from(sorted(KNOWN["openai"] | KNOWN["anthropic"])).map(str.title),
    st.sampled_from([None, "chat", "responses"]),
)
def test_a_parameter_that_is_not_known_is_never_sent(
    protocol: str, model: str, name: str, api: str | None
) -> None:
    known = KNOWN[protocol] | {"api", "n", "prompt_cache", "reasoning_effort", "stream", "system"}
    assume(name not in known | {"temperature", "output_schema"})

    with pytest.raises(ParameterRefused) as refused:
        adapted(PROTOCOLS[protocol], model, {name: ["a"], "api": api}, max_tokens=4000)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_the_operator_adds_parameters_but_none_that_agentchord_fills_in(protocol: str) -> None:
    added = ["models", "tools"]
    params: Params = {"models": ["a", "b"]}

    assert adapted(PROTOCOLS[protocol], "m", params, additions=added) == params
    with pytest.raises(ParameterRefused, match="the agent's tools"):
        adapted(PROTOCOLS[protocol], "m", {"tools": []}, additions=added)


@pytest.mark.parametrize("value", ["x", 5, [5], True, ""])
@pytest.mark.parametrize(
    ("protocol", "model", "name"),
    [
        ("openai", "gpt-4o-mini", "stream_options"),
        ("openai", "gpt-5.4", "stream_options"),
        ("anthropic", "claude-opus-4-6", "output_config"),
    ],
)
def test_a_parameter_with_keys_of_the_client_is_an_object(
    protocol: str, model: str, name: str, value: Any
) -> None:
    with pytest.raises(ParameterRefused, match=f"{name} in llm_config is .*: give an object"):
        adapted(PROTOCOLS[protocol], model, {name: value, "reasoning_effort": "high"})


def test_metadata_has_texts_only_because_gateways_choose_models_by_its_lists() -> None:
    with pytest.raises(ParameterRefused, match=r"metadata\.tags in llm_config is .*: give a text"):
        adapted(PROTOCOLS["openai"], "m", {"metadata": {"tags": ["dear"]}})

    assert adapted(PROTOCOLS["openai"], "m", {"metadata": {"team": "a"}})


def test_equal_beginnings_have_one_key_of_openais_cache_and_others_another() -> None:
    def key(system: str, user: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": "gpt-4o", "messages": messages, "prompt_cache": True}
        ask_openai(body)
        assert "prompt_cache" not in body
        return str(body["prompt_cache_key"])

    assert key("rules", "one") == key("rules", "two") != key("other rules", "one")


def test_anthropics_cache_is_asked_for_at_the_end_of_what_requests_have_in_common() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    tools = [{"name": "a"}, {"name": "b"}]
    instructed: Params = {"system": "rules", "prompt_cache": "1h"}
    equipped: Params = {"tools": tools, "prompt_cache": True}
    by_hand: Params = {"system": [{"text": "x", "cache_control": {}}], "prompt_cache": True}

    for body in (instructed, equipped, by_hand):
        ask_anthropic(body)

    assert instructed == {"system": [{"type": "text", "text": "rules", "cache_control": mark}]}
    short = {"type": "ephemeral"}
    assert equipped == {
        "tools": [{"name": "a"}, {"name": "b", "cache_control": short}],
        "cache_control": short,
    }
    assert by_hand == {"system": [{"text": "x", "cache_control": {}}]}
    assert tools == [{"name": "a"}, {"name": "b"}]


@pytest.mark.parametrize(
    ("protocol", "model", "least"),
    [
        ("openai", "gpt-4o", 1024),
        ("anthropic", "claude-haiku-4-5-20251001", 4096),
        ("anthropic", "claude-sonnet-4-6", 2048),
        ("anthropic", "claude-sonnet-5", 1024),
    ],
)
def test_the_least_that_a_provider_keeps_is_known(protocol: str, model: str, least: int) -> None:
    assert dialect_of(PROTOCOLS[protocol]).least_cached_tokens(model) == least


def test_a_tool_with_long_integers_has_a_cache_key_of_its_own() -> None:
    def key(number: int) -> str:
        tools = [{"parameters": {"const": number}}]
        body = {"model": "m", "messages": [], "tools": tools, "prompt_cache": True}
        ask_openai(body)
        return str(body["prompt_cache_key"])

    assert key(1 << 70) != key((1 << 70) + 1)

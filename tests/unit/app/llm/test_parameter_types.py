"""The types of parameters, nested ones included, are those that the SDKs declare."""

import json
import typing
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.protocols import PROTOCOLS
from app.llm.dialect import dialect_of
from app.llm.parameter_types import TABLE, problem_in, types_of
from app.llm.parameters import ParameterRefused, adapted
from tests.support.parameter_types import FORMS, parameter_types, written

REQUESTS = {"chat": ("openai", "m"), "responses": ("openai", "m"), "messages": ("anthropic", "m")}
#: Parameters that other code checks, or that are not sent.
CHECKED_ELSEWHERE = {"prompt_cache", "reasoning_effort"}


def refusal(form: str, given_parameters: dict[str, Any], **options: Any) -> str:
    protocol, model = REQUESTS[form]
    api = form if protocol == "openai" else None
    with pytest.raises(ParameterRefused) as refused:
        adapted(PROTOCOLS[protocol], model, given_parameters, api=api, max_tokens=4000, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_table_is_that_of_the_installed_sdks() -> None:
    assert TABLE.read_text(encoding="utf-8") == written(parameter_types()), (
        "run make parameter-types"
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_known_parameter_has_a_type(form: str) -> None:
    known = dialect_of(PROTOCOLS[REQUESTS[form][0]]).known

    assert known - types_of(form).keys() - CHECKED_ELSEWHERE == set()


@pytest.mark.parametrize(
    ("form", "parameters", "complaint"),
    [
        ("responses", {"include": "x"}, "include in llm_config is 'x': give a list of values from"),
        ("responses", {"include": ["x"]}, "include[0] in llm_config is 'x': give one of"),
        ("responses", {"include": [["x"]]}, "include[0] in llm_config is ['x']: give one of"),
        ("responses", {"max_tool_calls": "3"}, "max_tool_calls in llm_config is '3': give a whole"),
        ("responses", {"max_tool_calls": True}, "give a whole number"),
        ("responses", {"max_tool_calls": 2.5}, "give a whole number"),
        ("responses", {"reasoning": {"effort": "Low"}}, "reasoning.effort in llm_config is 'Low'"),
        ("responses", {"reasoning": {"effort": "Low"}}, "did you mean 'low'?"),
        ("responses", {"reasoning": {"Effort": "low"}}, "did you mean 'effort'?"),
        ("responses", {"reasoning": {"\uff45ffort": "low"}}, "did you mean 'effort'?"),
        ("responses", {"reasoning": {"eff\u200bort": "low"}}, "reasoning['eff\\u200bort']"),
        ("responses", {"reasoning": "high"}, "give an object with"),
        ("responses", {"text": {"verbosity": "LOW"}}, "text.verbosity in llm_config is 'LOW'"),
        ("responses", {"context_management": {"type": "compaction"}}, "give a list of objects"),
        ("responses", {"context_management": [{"type": 1}]}, "context_management[0].type"),
        ("responses", {"truncation": "Auto"}, "did you mean 'auto'?"),
        ("chat", {"reasoning": {"effort": "very high"}}, "reasoning.effort in llm_config"),
        ("chat", {"stop": [1]}, "stop[0] in llm_config is 1: give a text"),
        ("chat", {"stop": 5}, "give a text or a list of texts"),
        ("chat", {"logit_bias": {"50256": "ban"}}, "give a whole number"),
        ("chat", {"logit_bias": [1]}, "give an object of whole numbers"),
        ("chat", {"tool_choice": "Auto"}, "did you mean 'auto'?"),
        (
            "chat",
            {"tool_choice": {"type": "function"}},
            "tool_choice in llm_config has no 'function'",
        ),
        ("chat", {"tool_choice": {"function": {"name": "f"}}}, "has no 'type': give one of"),
        ("chat", {"tool_choice": {"type": "function", "function": {"name": 1}}}, "function.name"),
        ("chat", {"response_format": {"type": "json"}}, "give one of 'text', 'json_schema'"),
        ("chat", {"modalities": ["audio"]}, "only text is priced"),
        ("chat", {"seed": "1"}, "seed in llm_config is '1': give a whole number"),
        ("chat", {"temperature": "hot"}, "give a number"),
        ("chat", {"temperature": float("nan")}, "give a number"),
        ("chat", {"logprobs": 1}, "give true or false"),
        (
            "chat",
            {"metadata": {"tags": ["a"]}},
            "metadata.tags in llm_config is ['a']: give a text",
        ),
        ("chat", {"metadata": {1: "a"}}, "metadata[1] in llm_config is no known key"),
        ("chat", {"service_Tier": "flex"}, "did you mean 'service_tier'?"),
        ("chat", {"\uff53ervice_tier": "flex"}, "did you mean 'service_tier'?"),
        ("chat", {"service\u200b_tier": "flex"}, "did you mean 'service_tier'?"),
        ("chat", {"service_tier": ["flex"]}, "give a text"),
        ("messages", {"thinking": {"type": "Enabled"}}, "did you mean 'enabled'?"),
        (
            "messages",
            {"thinking": {"type": "enabled", "budget_tokens": "4000"}},
            "thinking.budget_tokens in llm_config is '4000': give a whole number",
        ),
        ("messages", {"thinking": {"type": "adaptive", "Display": "omitted"}}, "'display'?"),
        ("messages", {"tool_choice": "auto"}, "whose type is one of 'auto', 'any'"),
        ("messages", {"context_management": {"edits": [{"type": "compact"}]}}, "edits[0].type"),
        ("messages", {"stop_sequences": "END"}, "give a list of texts"),
        ("messages", {"stop": ["END", None]}, "stop[1] in llm_config is None: give a text"),
        ("messages", {"top_k": 1.5}, "top_k in llm_config is 1.5: give a whole number"),
        ("messages", {"cache_control": {"type": "ephemeral", "ttl": "1d"}}, "one of '5m', '1h'"),
        ("messages", {"output_config": {"effort": "Max"}}, "did you mean 'max'?"),
    ],
)
def test_a_wrong_type_or_spelling_is_refused_in_one_line(
    form: str, parameters: dict[str, Any], complaint: str
) -> None:
    assert complaint in refusal(form, parameters)


def test_an_operator_vouches_for_the_types_of_added_parameters() -> None:
    params = {"reasoning": {"Effort": "low"}, "stop": [1]}

    sent = adapted(PROTOCOLS["openai"], "m", params, additions=("reasoning", "stop"))

    assert sent["reasoning"] == {"Effort": "low"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["auto", "low", "enabled", "text", "function", "type", "1h"]),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "effort", "Effort", "format", "edits", "name", "ttl"])
            | st.text(max_size=4),
            parts,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def values_of(type_: Any) -> st.SearchStrategy[Any]:
    """Values of a type of the table."""
    simple = {
        "text": st.text(max_size=5),
        "integer": st.integers(),
        "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        "boolean": st.booleans(),
        "null": st.none(),
        "object": st.dictionaries(st.text(max_size=4), JSON, max_size=2),
        "value": JSON,
    }
    if isinstance(type_, str):
        return simple[type_]
    if "values" in type_:
        return st.sampled_from(type_["values"])
    if "either" in type_:
        return st.one_of([values_of(part) for part in type_["either"]])
    if "list" in type_:
        return st.lists(values_of(type_["list"]), max_size=2)
    if "map" in type_:
        return st.dictionaries(st.text(max_size=4), values_of(type_["map"]), max_size=2)
    fields = {name: values_of(part) for name, part in type_["fields"].items()}
    needed = {name: fields.pop(name) for name in type_["required"]}
    return st.fixed_dictionaries(needed, optional=fields)


PARAMETERS = [(form, name) for form in FORMS for name in types_of(form)]
DECLARED = {
    (form, name): pydantic.TypeAdapter(hint)
    for form, (_, classes) in FORMS.items()
    for name, hint in typing.get_type_hints(classes[-1]).items()
    if name in json.loads(TABLE.read_text(encoding="utf-8"))[form]
}


@given(st.data(), st.sampled_from(PARAMETERS))
def test_a_value_of_the_type_is_taken(data: st.DataObject, parameter: tuple[str, str]) -> None:
    form, name = parameter

    value = data.draw(values_of(types_of(form)[name]))

    assert problem_in(form, {name: value}) is None


@given(st.data(), st.sampled_from(sorted(DECLARED)), st.booleans())
def test_a_value_is_only_taken_if_the_sdk_takes_it(
    data: st.DataObject, parameter: tuple[str, str], near: bool
) -> None:
    form, name = parameter
    types = types_of(form)
    value = data.draw(values_of(types[name]) if near else JSON)
    if near and isinstance(value, dict) and value:
        value = {**value, data.draw(st.sampled_from(sorted(value))): data.draw(JSON)}

    problem = problem_in(form, {name: value})

    assert problem is None or "\n" not in problem
    # The types of these parameters are wider than the SDK's, see the module.
    wider = {"metadata", "tool_choice", "service_tier", "speed", "prompt_cache_retention"}
    if problem is None and name not in wider:
        DECLARED[parameter].validate_python(value, strict=not isinstance(value, list | dict))

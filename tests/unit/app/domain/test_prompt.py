import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.prompt import Placeholder, malformed_placeholders, placeholders, render
from app.errors import AgentError, MissingInput

VALUES: dict[str, Any] = {
    "name": "Ada",
    "extractor": {"total": 12.5, "items": [{"sku": "A1"}, {"sku": "B2"}], "note": None},
    "answer": '{"total": 7, "nested": "{\\"deep\\": true}"}',
    "fenced": '```json\n{"total": 8}\n```',
    "listed": "[1, 2]",
    "prose": "The total is {name}.",
    "failed": None,
    "größe": {"straße": 1},
}


def json_values_of(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=10,
    )


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("Hello {name}!", "Hello Ada!"),
        ("{name}{name}", "AdaAda"),
        ("{extractor.total}", "12.5"),
        ("{extractor.items[1].sku}", "B2"),
        ("{extractor.items}", '[{"sku":"A1"},{"sku":"B2"}]'),
        ("{extractor.note}", "null"),
        ("{größe.straße}", "1"),
        ("{größe}", '{"straße":1}'),
        ("", ""),
    ],
)
def test_placeholders_are_filled_with_text_or_compact_json(template: str, prompt: str) -> None:
    assert render(template, VALUES) == prompt


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{{name}}", "{name}"),
        ("{{{name}}}", "{Ada}"),
        ("{{ and }}", "{ and }"),
        ("}}", "}"),
        ('{{"a": {{"b": 1}}}}', '{"a": {"b": 1}}'),
        ('{{"a": {"b": "{name}"}}}', '{"a": {"b": "Ada"}}'),
    ],
)
def test_doubled_braces_are_literal_braces(template: str, prompt: str) -> None:
    assert render(template, VALUES) == prompt


@pytest.mark.parametrize(
    "template",
    [
        '{"a": 1}',
        '{"a": {"b": 1}}',
        '{"a": {"b": {"c": []}}, "d": {}}',
        "{ name }",
        "{}",
        "{0}",
        "{",
        "}",
        "{name",
        "name}",
        "f(x) { return x; }",
        "{name: string, total: number}",
        "{name!r}",
        "{name:>10}",
        "{extractor.}",
        "{extractor..total}",
        "{extractor[x]}",
        "{extractor[-1]}",
        "{extractor.total()}",
        "{name + name}",
        "{lambda: 0}",
        "{9name}",
    ],
)
def test_what_is_no_placeholder_stays_as_it_is(template: str) -> None:
    assert render(template, VALUES) == template
    assert placeholders(template) == []


@pytest.mark.parametrize(
    "template",
    [
        "{name.__class__}",
        "{name.__class__.__mro__}",
        "{extractor.__getattribute__}",
        "{extractor.items.__len__}",
        "{extractor.keys}",
        "{__builtins__}",
        "{self}",
        "{values}",
    ],
)
def test_attributes_and_names_of_python_are_missing_keys(template: str) -> None:
    with pytest.raises(MissingInput):
        render(template, VALUES)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{nane}", "placeholder {nane}: there is no 'nane', .*'name'.*did you mean 'name'"),
        ("{extractor.totl}", "'extractor' has no key 'totl'; its keys are 'total'.* mean 'total'"),
        ("{extractor.items[2]}", r"'extractor.items' has 2 elements, so no \[2\]"),
        ("{extractor.items.sku}", "'extractor.items' is a list, so it has no 'sku'"),
        ("{extractor[0]}", r"'extractor' is an object, so it has no \[0\]"),
        ("{extractor.total.x}", "'extractor.total' is a number, so it has no 'x'"),
        ("{prose.total}", "'prose' is a string, so it has no 'total'"),
        ("{failed.total}", "'failed' is null, so it has no 'total'"),
        ("{name[0]}", r"'name' is a string, so it has no \[0\]"),
    ],
)
def test_a_missing_value_is_named_with_what_there_is(template: str, message: str) -> None:
    with pytest.raises(MissingInput, match=message):
        render(template, VALUES)


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{answer.total}", "7"),
        ("{answer.nested.deep}", "true"),
        ("{fenced.total}", "8"),
        ("{listed[1]}", "2"),
        ("{answer}", VALUES["answer"]),
    ],
)
def test_a_path_leads_into_json_that_a_model_wrote_as_text(template: str, prompt: str) -> None:
    assert render(template, VALUES) == prompt


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{" + "9" * 3_000_000])
def test_hostile_json_in_a_text_is_just_text(text: str) -> None:
    with pytest.raises(MissingInput, match="'answer' is a string"):
        render("{answer.total}", {"answer": text})


def test_paths_into_an_absent_output_are_null() -> None:
    prompt = render("{failed} {failed.total} {name}", {"name": "Ada"}, absent={"failed"})

    assert prompt == "null null Ada"


def test_what_is_filled_in_is_not_rendered_again() -> None:
    values = {"a": "{b} {{b}} {b.__class__}", "b": "secret"}

    prompt = render("{a}", values)

    assert prompt == values["a"]


def test_placeholders_tell_root_path_and_text_in_order() -> None:
    found = placeholders("{name} {{no}} {extractor.items[0].sku}")

    assert found == [
        Placeholder(root="name", path=(), text="{name}"),
        Placeholder(root="extractor", path=("items", 0, "sku"), text="{extractor.items[0].sku}"),
    ]


@pytest.mark.parametrize(
    ("template", "malformed"),
    [
        ("{a.} {b}", ["{a.}"]),
        ("{a!r} {a:.2f} {a[x]} {a.b()}", ["{a!r}", "{a:.2f}", "{a[x]}", "{a.b()}"]),
        ("{{a!r}} {a} {a: 1} {a, b} {'a': 1}", []),
        ("{{{a.}}}", ["{a.}"]),
    ],
)
def test_malformed_placeholders_are_found(template: str, malformed: list[str]) -> None:
    assert malformed_placeholders(template) == malformed


@given(st.text(alphabet="{}ab.[0]!: \"'", max_size=60))
def test_no_template_does_anything_but_render_or_miss_a_value(template: str) -> None:
    try:
        prompt = render(template, {"a": {"b": [1]}, "b": "x"})
    except MissingInput:
        assert placeholders(template)
    else:
        assert isinstance(prompt, str)


@given(st.text())
def test_a_text_with_its_braces_doubled_renders_to_itself(text: str) -> None:
    template = text.replace("{", "{{").replace("}", "}}")

    assert render(template, {}) == text


@given(json_values_of(st.text(st.characters(exclude_characters="{}"))))
def test_json_in_a_prompt_stays_as_it_is(value: Any) -> None:
    text = json.dumps(value)

    assert render(text, {}) == text


@given(json_values_of(st.text()))
def test_a_value_is_inserted_so_that_it_can_be_read_back(value: Any) -> None:
    prompt = render("{value}", {"value": value})

    assert prompt == value if isinstance(value, str) else json.loads(prompt) == value


@pytest.mark.parametrize(
    "template",
    [
        "{" * 1_000_000,
        "}" * 1_000_000,
        "{{}}" * 250_000,
        "{a" * 500_000,
        "{a." * 333_333,
        "{a" + ".a" * 500_000,
        "{a" + "[0]" * 333_333,
        "{a}" * 333_333,
        "{a:" * 333_333,
        '{"a": ' * 166_666,
        "x" * 1_000_000,
    ],
    ids=lambda template: template[:8],
)
def test_a_megabyte_takes_linear_time(template: str) -> None:
    started_s = time.process_time()
    render(template, {"a": "value"})
    malformed_placeholders(template)
    taken_s = time.process_time() - started_s

    assert taken_s < 3.0


def test_a_long_path_into_nothing_is_refused_shortly() -> None:
    template = "{a" + ".a" * 100_000 + "}"

    with pytest.raises(MissingInput) as caught:
        render(template, {"a": {}})

    assert len(str(caught.value)) < 300


def test_a_prompt_that_grows_out_of_bounds_is_refused() -> None:
    template = "{a}" * 1000

    with pytest.raises(AgentError, match="over 20,000,000 characters"):
        render(template, {"a": "x" * 100_000})


def test_a_value_nested_too_deeply_to_be_written_is_refused() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises(MissingInput, match="nested too deeply"):
        render("{a}", {"a": value})

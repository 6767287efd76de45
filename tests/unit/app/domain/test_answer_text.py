"""The JSON value in a model's text: found among thoughts, fences and prose, and never guessed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.answer_text import bare_json, json_in_prose
from tests.support.json_documents import json_values

BARE = '{"total": 5}'
PROSE = st.text(st.characters(codec="utf-8", exclude_characters="{}[]<>`~\0"), max_size=40)


@pytest.mark.parametrize(
    "text",
    [
        BARE,
        f"\ufeff{BARE}",
        f"  \n{BARE}\n",
        f"```json\n{BARE}\n```",
        f"```JSON\n{BARE}\n```",
        f"```Json5 {BARE}```",
        f"```\n{BARE}\n```",
        f"~~~json\n{BARE}\n~~~",
        f"````json\n{BARE}\n````",
        f"<think>Is it 4? {{}} No.</think>{BARE}",
        f"<think>\n</think>\n\n```json\n{BARE}\n```",
        f"<THINK>a</THINK> <think>b</think> {BARE}",
        f"<thinking>a</thinking>{BARE}",
        f"The opening tag is in the prompt.</think>{BARE}",
        f"\ufeff<think>a</think>\ufeff{BARE}".replace("\ufeff{", "{"),
    ],
)
def test_thoughts_fences_and_marks_are_left_out(text: str) -> None:
    assert bare_json(text) == BARE


@given(json_values.filter(lambda value: isinstance(value, dict | list)))
def test_json_itself_is_never_touched(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)

    assert bare_json(text) == text
    assert bare_json(json.dumps(["</think>", "```", value])) == json.dumps(
        ["</think>", "```", value]
    )


@given(PROSE, json_values.filter(lambda value: isinstance(value, dict | list)), PROSE)
def test_the_only_value_among_prose_is_found(before: str, value: Any, after: str) -> None:
    text = json.dumps(value)

    assert json_in_prose(f"{before} {text} {after}", "{[") == text
    assert json_in_prose(f"{before} {text} {text} {after}", "{[") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Here it is:\n```json\n{BARE}\n```\nAnything else?", BARE),
        (f"As {{name}} says [see note], it is {BARE}.", BARE),
        (f"{BARE} as in [1] and [2]", BARE),
        (f"[a [nested] note] {BARE}", BARE),
        ("5", None),
        ("no value", None),
        (f"{BARE} or rather {BARE}", None),
        (f"<think>first {BARE}", None),
        ('{"items": [{"total": 5}], "total": }', None),
        (f"{{items: [{BARE}]}}", None),
        (f"{{'total': 5}} {BARE}", None),
        (f"\\boxed{{{BARE}}}", None),
        (f"see {{ {BARE}", None),
        (f'{BARE} and {{"total": 6', None),
        (f"[not so {BARE}", None),
        ("[1]", None),
        (f"[{BARE}] is a list", None),
    ],
)
def test_an_object_is_taken_only_if_no_other_could_be_meant(text: str, found: str | None) -> None:
    assert json_in_prose(text, "{") == found


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 200_000, "{a" * 100_000, "[a" * 100_000, "<think>" * 50_000, "`" * 200_000),
        *("{" + " " * 200_000, "[a] " * 50_000, "</think>" * 50_000, '{"a":' * 100_000),
    ],
)
def test_long_texts_take_no_long_time(text: str) -> None:
    assert json_in_prose(bare_json(text), "{[") is None

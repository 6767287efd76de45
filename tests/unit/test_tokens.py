import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.llm.base import Message, ToolCall
from app.llm.tokens import expected_tokens, upper_bound_tokens

TOOL = {
    "name": "look_up",
    "description": "Looks something up.",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
}
ANY_TEXT = st.text(st.characters(codec=None, categories=None))


def user(text: str) -> Message:
    return {"role": "user", "content": text}


@given(ANY_TEXT)
def test_the_upper_bound_covers_every_byte_of_any_text(text: str) -> None:
    bound = upper_bound_tokens([user(text)])

    assert bound >= len(text.encode("utf-8", "surrogatepass")) + 8


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_the_expectation_never_exceeds_the_upper_bound(texts: list[str]) -> None:
    messages = [user(text) for text in texts]

    assert 1 <= expected_tokens(messages, [TOOL]) <= upper_bound_tokens(messages, [TOOL])


def test_the_upper_bound_holds_for_known_counts_of_openai() -> None:
    # Counted with o200k_base: 7 and 3 tokens a message, 3 for the answer's start.
    system: Message = {"role": "system", "content": "You are terse."}
    messages = [system, user("Name three prime numbers.")]

    assert upper_bound_tokens(messages) > 22


def test_prose_is_expected_to_have_a_quarter_as_many_tokens_as_bytes() -> None:
    assert expected_tokens([user("a" * 4000)]) == pytest.approx(1000, rel=0.01)


def test_tools_and_their_answers_are_counted() -> None:
    call = ToolCall(id="call_1", name="look_up", arguments='{"key": "é"}')
    messages: list[Message] = [
        user("look"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "found " * 100},
    ]

    bound = upper_bound_tokens(messages, [TOOL])

    assert bound - upper_bound_tokens(messages) > 346
    assert upper_bound_tokens(messages) - upper_bound_tokens(messages[:1]) > 600


def test_further_parameters_are_counted() -> None:
    plain = upper_bound_tokens([user("x")])

    assert upper_bound_tokens([user("x")], params={"system": "s" * 1000}) > plain + 1000


def test_reasoning_that_goes_back_is_counted() -> None:
    plain = {"role": "assistant", "content": ""}
    blocks = [{"type": "thinking", "thinking": "t" * 500, "signature": "s" * 500}]
    reasoned = {**plain, "blocks": blocks}

    assert upper_bound_tokens([reasoned]) > upper_bound_tokens([plain]) + 1000


def test_parts_of_text_are_counted_and_pictures_refused() -> None:
    parts = [{"type": "text", "text": "a" * 100}, {"type": "text", "text": "b" * 100}]
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}

    assert upper_bound_tokens([{"role": "user", "content": parts}]) > 200
    with pytest.raises(BadRequest, match="'image_url'") as refused:
        upper_bound_tokens([{"role": "user", "content": [*parts, picture]}])
    assert not refused.value.reached


def test_a_content_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest, match="int"):
        expected_tokens([{"role": "user", "content": 5}])

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.llm.base import Message, ToolCall
from app.llm.estimates import PromptEstimates
from app.llm.tokens import expected_tokens, upper_bound_tokens, usual_tokens

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
    reasoned = {**plain, "original": {"by": "anthropic", "message": blocks}}

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


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("gpt-4o", 1000), ("claude-sonnet-4-6", 1111), ("claude-sonnet-5", 1379), ("glm-4", 1000)],
)
def test_the_same_text_has_more_tokens_for_claude(model: str, tokens: int) -> None:
    found = expected_tokens([user("a" * 4000)], model=model)

    assert found == pytest.approx(tokens, rel=0.01)
    assert usual_tokens(found, model) == pytest.approx(1000, rel=0.02)


def test_estimates_learn_what_a_provider_counts_and_stay_apart_by_model() -> None:
    estimates = PromptEstimates()
    before = estimates.corrected("vllm", "a", 1000)

    for _ in range(50):
        estimates.learn("vllm", "a", 1000, 1500)

    assert before == 1000
    assert estimates.corrected("vllm", "a", 1000) == pytest.approx(1500, rel=0.02)
    assert estimates.corrected("vllm", "b", 1000) == 1000


def test_estimates_forget_and_believe_nothing_absurd() -> None:
    estimates = PromptEstimates()

    for counted in [1500] * 100 + [700] * 200:
        estimates.learn("vllm", "a", 1000, counted)
    estimates.learn("odd", "a", 10, 10_000_000)
    estimates.learn("none", "a", 1000, 0)

    assert estimates.corrected("vllm", "a", 1000) == pytest.approx(700, rel=0.02)
    assert estimates.corrected("odd", "a", 10) == 50
    assert estimates.corrected("none", "a", 1000) == 1000

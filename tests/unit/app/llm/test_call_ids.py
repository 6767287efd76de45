"""Ids of tool calls: unique in an answer, and valid in a request."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.base import Message, ToolCall
from app.llm.call_ids import for_anthropic, for_openai, unique

IDS = st.text(max_size=80) | st.sampled_from(["", "call_0", "functions.get:0", "call 1"])


def call(id_: str) -> ToolCall:
    return ToolCall(id=id_, name="look_up", arguments="{}")


def conversation(turns: list[list[str]]) -> list[Message]:
    """A conversation in which each turn has calls with these ids, all of which are answered."""
    messages: list[Message] = []
    for ids in turns:
        calls = unique([call(id_) for id_ in ids])
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": each.id, "content": "x"} for each in calls]
    return messages


@given(st.lists(IDS, max_size=6))
def test_the_ids_of_an_answer_are_unique_and_good_ids_stay(ids: list[str]) -> None:
    made = [each.id for each in unique([call(id_) for id_ in ids])]

    assert len(set(made)) == len(made) == len(ids)
    assert all(made)
    first = [id_ for place, id_ in enumerate(ids) if id_ and id_ not in ids[:place]]
    assert [id_ for id_ in made if id_ in ids] == first


@given(st.lists(st.lists(IDS, min_size=1, max_size=3), max_size=4))
@pytest.mark.parametrize(
    ("to", "form"),
    [
        ("claude", r"[a-zA-Z0-9_-]{1,64}"),
        ("gpt-4o", r"\S{1,40}"),
        ("mistral-large-latest", r"[a-zA-Z0-9]{9}"),
    ],
)
def test_each_request_has_ids_that_its_provider_takes(
    to: str, form: str, turns: list[list[str]]
) -> None:
    given_ = conversation(turns)

    sent = for_anthropic(given_) if to == "claude" else for_openai(given_, to)

    called = [each.id for message in sent for each in message.get("tool_calls", ())]
    answered = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
    assert called == answered
    assert len(set(called)) == len(called)
    assert all(re.fullmatch(form, id_) for id_ in called)
    assert sent == (for_anthropic(given_) if to == "claude" else for_openai(given_, to))


def test_ids_that_a_provider_takes_are_not_changed() -> None:
    messages = conversation([["call_1", "toolu_2"], ["call_3"]])

    assert for_anthropic(messages) == for_openai(messages, "gpt-4o") == messages

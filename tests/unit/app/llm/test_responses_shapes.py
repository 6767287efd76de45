"""Responses with fields that are missing, null or of another type are read, or are an error."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.answers import Answer
from app.llm.finish import finish_of
from app.llm.responses_answer import read_response
from app.llm.responses_stream import ResponsesAssembly
from app.llm.wire import PROTOCOL_ERRORS
from tests.support.wire_server import names, shapes

BODY = {"model": "gpt-5.6-terra"}
ODD = st.sampled_from([None, 0, -1, 2.5, True, "", "odd", [], [None], {}, {"a": 1}])
CONVERSATIONS = [name for name in names("responses") if "stream" in shapes("responses", name)]
WHOLE = [
    answer["body"]
    for name in CONVERSATIONS
    for answer in shapes("responses", name).get("whole", ())
    if answer["status"] == 200
]
STREAMS = [
    [event["data"] for event in answer["events"]]
    for name in CONVERSATIONS
    for answer in shapes("responses", name)["stream"]
]


def read(answer: Any) -> Answer | None:
    """An answer that is whole; None if it is a failure, or does not follow the protocol."""
    try:
        found = read_response(answer)
    except PROTOCOL_ERRORS:
        return None
    return None if found.error or finish_of(found.word) is None else found


@st.composite
def spoiled(draw: st.DrawFn, values: Any) -> Any:
    """One of the values, with one field dropped or replaced somewhere in it."""
    value = copy.deepcopy(draw(st.sampled_from(values)))
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner) or draw(st.booleans()):
            break
        place = inner
    if draw(st.booleans()):
        del place[key]
    else:
        place[key] = draw(ODD)
    return value


@given(spoiled(WHOLE))
def test_an_odd_field_never_makes_an_error_of_another_kind(answer: Any) -> None:
    found = read(answer)

    if found is not None:
        usage = found.counts.usage
        assert min(usage.input_tokens, usage.output_tokens, usage.cached_tokens) >= 0


@given(spoiled(WHOLE), st.sampled_from(["failed", "cancelled", "queued", "in_progress", "new"]))
def test_success_never_comes_of_a_response_that_is_not_completed(answer: Any, status: str) -> None:
    assert read({**answer, "status": status}) is None


@given(spoiled(STREAMS))
def test_a_stream_with_an_odd_event_is_read_or_breaks_the_protocol(events: list[Any]) -> None:
    assembly = ResponsesAssembly(BODY)
    try:
        for event in events:
            assembly.add(event)
        if assembly.complete:
            read(assembly.answer())
    except PROTOCOL_ERRORS:
        return

    bounded = assembly.bounded(prompt_tokens=50, max_tokens=400)
    if assembly.raw_usage:
        assert bounded.output_tokens >= assembly._counts().usage.output_tokens


@pytest.mark.parametrize("events", STREAMS, ids=range(len(STREAMS)))
def test_no_prefix_of_a_stream_is_complete(events: list[Any]) -> None:
    for length in range(len(events) - 1):
        assembly = ResponsesAssembly(BODY)
        for event in events[:length]:
            assembly.add(event)

        assert not assembly.complete or events[length - 1]["type"] == "error"

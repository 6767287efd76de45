"""The words for how an answer ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConnectionFailed, Overloaded, ProviderError, ServerFailure
from app.llm.finish import failure_of, finish_of


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        (None, "stop"),
        ("stop", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("FinishReason.STOP", "stop"),
        ("tool_use", "tool_calls"),
        ("function_call", "tool_calls"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("model_context_window_exceeded", "length"),
        ("SAFETY", "content_filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("refusal", "content_filter"),
        ("error", None),
        ("network_error", None),
        ("insufficient_system_resource", None),
        ("abort", None),
        ("malformed_function_call", None),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", None),
        ("end", "stop"),
        ("stop_str", "stop"),
        ("toolUse", "tool_calls"),
        ("tool-calls", "tool_calls"),
        ("maxTokens", "length"),
        ("max_completion_tokens", "length"),
        ("contentFilter", "content_filter"),
        ("stop:error", None),
        ("pause_turn", None),
        ("", None),
        (7, None),
    ],
)
def test_a_word_means_an_end_or_a_failure(word: object, finish: str | None) -> None:
    assert finish_of(word) == finish


@given(word=st.text(), may_pause=st.booleans())
def test_an_unknown_word_is_never_success(word: str, may_pause: bool) -> None:
    assert finish_of(f"{word} unheard of", may_pause=may_pause) is None


def test_a_pause_is_one_only_if_the_provider_runs_tools() -> None:
    assert finish_of("pause_turn", may_pause=True) == "pause"
    assert finish_of("pause", may_pause=True) is None
    assert failure_of("pause_turn") is ServerFailure


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("insufficient_system_resource", Overloaded),
        ("network_error", ConnectionFailed),
        ("error", ServerFailure),
        ("new", ServerFailure),
    ],
)
def test_a_word_for_a_failure_has_its_class(word: str, kind: type[ProviderError]) -> None:
    assert failure_of(word) is kind

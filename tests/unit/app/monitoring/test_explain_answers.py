"""Cut and empty answers are named, and the harm that they do to outputs."""

from app.monitoring.explain_answers import explain_answers
from app.monitoring.findings import Reason
from tests.support.histories import agent, attempt, call, history


def test_a_cut_output_is_told_with_its_remedy() -> None:
    found = explain_answers(
        history(
            agent("a"),
            calls=(call("a", 0, 1, finish_reason="length"),),
            attempts=(attempt("a", 0, 1, finish_reason="length"),),
        )
    )

    (cut,) = found
    assert (cut.reason, cut.agents) == (Reason.CUT, ("a",))
    assert cut.text == "was cut at max_tokens in the only answer, and the output ends there"
    assert "raise max_tokens" in cut.remedy


def test_a_cut_answer_that_was_continued_is_told_without_harm_to_the_output() -> None:
    calls = (call("a", 0, 1, finish_reason="length"), call("a", 1, 2, finish_reason="stop"))
    (cut,) = explain_answers(
        history(agent("a"), calls=calls, attempts=(attempt("a", 0, 2, finish_reason="stop"),))
    )

    assert cut.text == "was cut at max_tokens in 1 of 2 answers"


def test_empty_outputs_are_told_with_the_elements_that_have_them() -> None:
    attempts = [attempt("a", 0, 1, path=f"a[{item}]", finish_reason="empty") for item in range(3)]

    (empty,) = explain_answers(history(agent("a"), attempts=tuple(attempts)))

    assert (empty.reason, empty.text) == (Reason.EMPTY, "got an answer without a text")
    assert empty.subject == "a[0-2]"


def test_whole_answers_are_not_remarkable() -> None:
    whole = history(
        agent("a"),
        calls=(call("a", 0, 1, finish_reason="stop"), call("a", 1, 2, outcome="ServerFailure")),
        attempts=(attempt("a", 0, 1, finish_reason="stop"),),
    )

    assert explain_answers(whole) == ()

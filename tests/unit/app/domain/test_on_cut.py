"""The treatment of cut and empty answers follows from one field and one fact."""

import pytest

from app.domain.on_cut import OnCut, accepts_empty, on_cut_of


@pytest.mark.parametrize("needs_whole", [True, False])
def test_a_given_treatment_always_counts(needs_whole: bool) -> None:
    for given in OnCut:
        assert on_cut_of(given, needs_whole=needs_whole) is given


def test_half_an_answer_is_accepted_only_where_nothing_needs_the_whole() -> None:
    assert on_cut_of(None, needs_whole=True) is OnCut.FAIL
    assert on_cut_of(None, needs_whole=False) is OnCut.ACCEPT


@pytest.mark.parametrize(
    ("given", "needs_whole", "accepted"),
    [
        (None, True, False),
        (None, False, True),
        ("fail", False, False),
        ("accept", True, True),
        ("continue", True, False),
        ("continue", False, True),
    ],
)
def test_an_empty_answer_is_treated_like_a_cut_one(
    given: str | None, needs_whole: bool, accepted: bool
) -> None:
    assert accepts_empty(given, needs_whole=needs_whole) is accepted

import pytest

from app.domain.suggestions import did_you_mean

KEYS = ("agents", "agent_type", "priority", "prompt_template", "max_turns", "max_retries", "module")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("modul", "module"),
        ("promt", "prompt_template"),
        ("prompt", "prompt_template"),
        ("PROMPT", "prompt_template"),
        ("priorty", "priority"),
        ("agent", "agents"),
        ("agent_t", "agent_type"),
        ("max_turn", "max_turns"),
        ("max_retires", "max_retries"),
    ],
)
def test_the_name_is_meant_that_is_mistyped_or_begins_so(word: str, meant: str) -> None:
    assert did_you_mean(word, KEYS) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("word", ["max", "x", "", "entirely"])
def test_nothing_is_meant_by_what_is_near_no_name_or_begins_several(word: str) -> None:
    assert did_you_mean(word, KEYS) == ""

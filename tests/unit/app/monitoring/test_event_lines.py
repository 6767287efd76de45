"""Events as lines of text."""

import pytest

from app.domain.events import Level, level_of
from app.monitoring.event_lines import event_line


@pytest.mark.parametrize(
    ("type_", "attempt", "data", "expected"),
    [
        ("run_created", None, {"workflow": "w", "agents": 3}, "run: created, workflow w, agents 3"),
        ("agent_started", 1, {"agent": "a"}, "a: started"),
        ("agent_started", 2, {"agent": "a"}, "a: started (attempt 2)"),
        (
            "agent_retrying",
            1,
            {"agent": "a", "error": "503\nbusy", "error_class": "ServerFailure", "ready_in_s": 1.5},
            "a: retrying, ready in 1.5 s: ServerFailure: 503 busy",
        ),
        (
            "tool_finished",
            1,
            {"agent": "a", "tool": "t", "seconds": 0.2},
            "a: tool finished, tool t, seconds 0.2",
        ),
        ("something_new", None, {"fact": 1}, "run: something new, fact 1"),
    ],
)
def test_an_event_is_told_in_one_line(
    type_: str, attempt: int | None, data: dict[str, object], expected: str
) -> None:
    line = event_line(type_, data, attempt)

    assert f"{line.subject}: {line.text}" == expected


def test_failures_are_errors_and_what_is_out_of_order_is_a_warning() -> None:
    assert level_of("agent_failed") is Level.ERROR
    assert level_of("agent_retrying") is Level.WARNING
    assert level_of("agent_completed") is Level.INFO
    assert [level.rank for level in Level] == [0, 1, 2]

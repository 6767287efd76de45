"""The timeline of a run."""

from dataclasses import replace
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.monitoring.timeline import Phase, element_timeline, timeline_of
from tests.support.histories import agent, at, attempt, call, event, history, standing


def phases(name: str, run: object) -> list[tuple[str, float, float]]:
    timeline = timeline_of(run)  # type: ignore[arg-type]
    found = timeline.of(name)
    assert found is not None
    return [
        (
            str(span.phase),
            (span.start - timeline.start).total_seconds(),
            (span.end - timeline.start).total_seconds(),
        )
        for span in found.spans
    ]


def test_an_agent_is_queued_then_held_then_calling() -> None:
    run = history(
        agent("a", finished_at=at(6)),
        attempts=(attempt("a", 1, 6),),
        calls=(call("a", 3, 6),),
    )

    assert phases("a", run) == [("queued", 0, 1), ("held", 1, 3), ("calling", 3, 6)]


def test_between_two_attempts_it_is_away() -> None:
    run = history(
        agent("a", finished_at=at(8), retries=1),
        attempts=(attempt("a", 0, 2, outcome="failed"), attempt("a", 5, 8, number=2)),
        calls=(call("a", 0, 2, outcome="Overloaded"), call("a", 5, 8)),
    )

    assert phases("a", run) == [("calling", 0, 2), ("away", 2, 5), ("calling", 5, 8)]


def test_a_long_wait_without_a_place_is_no_retry() -> None:
    run = history(
        agent("a", finished_at=at(9)),
        attempts=(attempt("a", 0, 2, outcome="handed_back"), attempt("a", 8, 9, number=2)),
        calls=(call("a", 8, 9),),
        events=(event("agent_waiting", 2, agent="a"),),
    )

    assert phases("a", run) == [("held", 0, 8), ("calling", 8, 9)]


def test_the_time_with_a_worker_that_died_is_lost_and_was_no_wait() -> None:
    run = history(
        agent("a", finished_at=at(20), recoveries=1),
        attempts=(attempt("a", 0, 15, outcome="lost"), attempt("a", 16, 20, number=2)),
        calls=(call("a", 1, 3), call("a", 16, 20)),
    )

    assert phases("a", run) == [
        ("lost", 0, 1),
        ("calling", 1, 3),
        ("lost", 3, 15),
        ("away", 15, 16),
        ("calling", 16, 20),
    ]


def test_calls_that_overlap_count_once() -> None:
    run = history(
        agent("list", finished_at=at(5), item_count=2),
        attempts=(
            attempt("list", 0, 4, path="list[0]"),
            attempt("list", 1, 5, path="list[1]"),
        ),
        calls=(call("list", 0, 4), call("list", 1, 5)),
    )

    assert phases("list", run) == [("calling", 0, 5)]


def test_the_waits_inside_a_sub_workflow_are_no_work() -> None:
    run = history(
        agent("check", finished_at=at(20), sub_run_id=UUID(int=7)),
        attempts=(
            attempt("check", 1, 20, is_container=True),
            attempt("check", 3, 9, path="check/read"),
            attempt("check", 11, 12, path="check/judge", outcome="failed"),
            attempt("check", 14, 20, path="check/judge", number=2),
        ),
        calls=(call("check", 7, 9, path="check/read"), call("check", 14, 20, path="check/judge")),
    )

    assert phases("check", run) == [
        ("queued", 0, 3),
        ("held", 3, 7),
        ("calling", 7, 9),
        ("queued", 9, 11),
        ("held", 11, 12),
        ("away", 12, 14),
        ("calling", 14, 20),
    ]


def test_the_time_of_an_element_is_its_own_from_the_start_of_the_list_on() -> None:
    run = history(
        agent("list", finished_at=at(9), item_count=2),
        attempts=(
            attempt("list", 0, 9, is_container=True),
            attempt("list", 1, 4, path="list[0]"),
            attempt("list", 5, 9, path="list[1]"),
        ),
        calls=(call("list", 1, 4, path="list[0]"), call("list", 5, 9, path="list[1]")),
    )

    found = element_timeline(run, agent("list[1]", finished_at=at(9)))

    assert [(s.phase, s.start, s.end) for s in found.spans] == [
        ("queued", at(0), at(5)),
        ("calling", at(5), at(9)),
    ]


def test_the_time_of_a_function_is_its_attempt() -> None:
    run = history(
        agent("f", provider="function", finished_at=at(3)),
        attempts=(attempt("f", 1, 3, provider="function"),),
    )

    assert phases("f", run) == [("queued", 0, 1), ("calling", 1, 3)]


def test_what_goes_on_lasts_until_now() -> None:
    run = history(
        agent("a", status="running"),
        agent("b", status="pending", started_at=None),
        now=10,
        attempts=(attempt("a", 1, None, outcome="running"),),
        standing=(standing("a", status="running", calling_since=at(4)), standing("b")),
    )

    assert phases("a", run) == [("queued", 0, 1), ("held", 1, 4), ("calling", 4, 10)]
    assert phases("b", run) == [("queued", 0, 10)]


def test_the_critical_path_is_the_agent_that_each_level_waited_for() -> None:
    run = history(
        agent("fast", finished_at=at(2)),
        agent("slow", finished_at=at(5)),
        agent("next", 1, started_at=at(5), finished_at=at(7)),
        dependencies={"next": ["fast"]},
        attempts=(attempt("fast", 0, 2), attempt("slow", 0, 5), attempt("next", 5, 7)),
    )

    path = timeline_of(run).critical_path

    assert [(step.name, step.is_dependency) for step in path] == [("slow", False), ("next", True)]


def test_a_level_that_cannot_begin_yet_is_in_no_path() -> None:
    run = history(
        agent("done", finished_at=at(1)),
        agent("open", status="running"),
        agent("later", 1, status="pending", started_at=None),
        now=9,
        attempts=(attempt("done", 0, 1), attempt("open", 0, None, outcome="running")),
        standing=(standing("open", status="running"), standing("later", level=1)),
    )

    timeline = timeline_of(run)

    assert [step.name for step in timeline.critical_path] == ["open"]
    assert timeline.agents[2].spans == ()


def test_a_pause_is_a_part_of_the_time() -> None:
    run = history(
        agent("a", finished_at=at(9)),
        attempts=(attempt("a", 0, 9),),
        events=(event("run_paused", 2), event("run_resumed", 6)),
    )

    assert timeline_of(run).pauses == ((at(2), at(6)),)


def test_a_run_that_nobody_has_admitted_has_no_time() -> None:
    waiting = agent("a", status="pending", started_at=None)
    run = history(waiting, run={"started_at": None, "status": "pending"})

    timeline = timeline_of(run)

    assert timeline.of("a") == replace(timeline.agents[0], spans=())
    assert timeline.critical_path == ()


times = st.lists(st.integers(0, 50), min_size=2, max_size=12)


@pytest.mark.unit
@given(tries=times, calls=times)
def test_the_spans_cover_the_time_without_gaps_and_take_turns(
    tries: list[int], calls: list[int]
) -> None:
    run = history(
        agent("a", finished_at=at(60)),
        attempts=tuple(attempt("a", min(pair), max(pair) + 1) for pair in pairwise(tries)),
        calls=tuple(call("a", min(pair), max(pair) + 1) for pair in pairwise(calls)),
    )

    end = 1 + max(tries)

    (found,) = timeline_of(run).agents

    assert found.spans[0].start == at(0)
    assert found.spans[-1].end == at(end)
    for before, after in pairwise(found.spans):
        assert before.end == after.start
        assert before.phase is not after.phase
    assert found.waiting_s + found.calling_s == pytest.approx(end)
    assert found.seconds(*Phase) == pytest.approx(end)

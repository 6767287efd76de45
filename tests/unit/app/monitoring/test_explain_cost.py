"""The time and the money of a run, in sentences."""

from decimal import Decimal

from app.monitoring.explain_cost import explain_agent_time, explain_money, explain_time
from app.monitoring.timeline import timeline_of
from tests.support.histories import (
    agent,
    at,
    attempt,
    call,
    history,
)


def test_a_run_that_spent_most_of_its_time_waiting_says_where() -> None:
    run = history(
        agent("a", finished_at=at(10)),
        attempts=(attempt("a", 1, 10),),
        calls=(call("a", 8, 10),),
    )

    whole, longest = explain_time(run, timeline_of(run))

    parts = (
        "7.0 s waiting for limits, money or circuits, 2.0 s calling or working, "
        "1.0 s waiting to be claimed"
    )
    assert whole.text == f"took 10.0 s; on its critical path (a): {parts}"
    assert longest.agents == ("a",)
    assert longest.remedy.startswith("agentchord limits")
    assert explain_agent_time(run, timeline_of(run).agents[0])[0].text == (
        f"took 10.0 s from the start of its level: {parts}"
    )


def test_agents_that_waited_most_of_their_time_are_named() -> None:
    crowd = [agent(f"a{number}", finished_at=at(10)) for number in range(3)]
    run = history(*crowd, attempts=tuple(attempt(one.name, 9, 10) for one in crowd))

    *_, waiting = explain_time(run, timeline_of(run))

    assert waiting.agents == ("a0", "a1", "a2")
    assert waiting.text.startswith("spent most of the time waiting: 27.0 s waiting to be claimed")
    assert waiting.remedy == "more workers, or a higher max_parallel_agents"


def test_an_expensive_agent_is_compared_with_its_usual_and_its_planned_cost() -> None:
    run = history(
        agent("a"),
        agent("b"),
        calls=(
            call("a", 0, 1, cost_usd=Decimal("0.09"), prompt_tokens=9000),
            call("b", 0, 1, cost_usd=Decimal("0.01")),
            call("b", 0, 1, cost_usd=Decimal("0.01"), outcome="ServerFailure"),
        ),
        usual_usd={"a": Decimal("0.03"), "b": Decimal("0.02")},
    )

    found = explain_money(run, {"a": Decimal("0.02"), "b": Decimal("0.02")})

    assert [each.text for each in found] == [
        "has spent $0.11 of $1.00 in 3 calls; most of it: a $0.09 (82%), b $0.02 (18%)",
        "paid $0.01 (9% of the run) for calls that failed: ServerFailure",
        "cost 2.8 times the planned $0.04",
        (
            "cost 3.0 times the usual amount ($0.09 instead of $0.03): "
            "1 call, 9,000 tokens read, 20 written"
        ),
        (
            "cost 4.5 times the planned amount ($0.09 instead of $0.02): "
            "1 call, 9,000 tokens read, 20 written"
        ),
    ]


def test_worst_cases_of_calls_that_nobody_saw_end_are_told() -> None:
    run = history(agent("a"), calls=(call("a", 0, 1, kind="unconfirmed"),))

    texts = [each.text for each in explain_money(run)]

    assert "is booked at the worst case, $0.001, for calls whose end is not known" in texts

"""Past waits, by name."""

from app.monitoring.explain_cost import explain_time
from app.monitoring.explain_waited import explain_waited
from app.monitoring.findings import Reason
from app.monitoring.run_facts import Wait
from app.monitoring.timeline import timeline_of
from tests.support.histories import agent, at, attempt, history

WAITS = (
    Wait(agent="a", waits_for="openai/gpt-4o requests_per_minute", seconds=4, longest_s=3, count=2),
    Wait(agent="b", waits_for="openai/gpt-4o requests_per_minute", seconds=6, longest_s=6),
    Wait(agent="a", waits_for="money of the budget of module Legal", seconds=12, longest_s=12),
    Wait(agent="a", waits_for="openai/gpt-4o circuit", seconds=0.2, longest_s=0.2),
)


def test_each_limit_and_budget_that_was_waited_for_is_named_with_how_long() -> None:
    run = history(agent("a"), agent("b"), waits=WAITS)

    money, limit = explain_waited(run)
    of_b = explain_waited(run.focused(agent("b")))

    assert money.text == "waited 12.0 s for money of the budget of module Legal"
    assert (money.reason, money.agents) == (Reason.MONEY, ("a",))
    assert limit.text == (
        "waited 10.0 s in all, 6.0 s at most, for the rate limit openai/gpt-4o requests_per_minute"
    )
    assert (limit.reason, limit.agents) == (Reason.LIMIT, ("a", "b"))
    assert [each.text for each in of_b] == [
        "waited 6.0 s for the rate limit openai/gpt-4o requests_per_minute"
    ]


def test_the_budget_of_a_run_is_raised_otherwise_than_a_standing_one() -> None:
    remedies = [
        explain_waited(history(agent("a"), waits=(wait,)))[0].remedy
        for budget in ("run 0197", "module Legal")
        for wait in [
            Wait(agent="a", waits_for=f"money of the budget of {budget}", seconds=9, longest_s=9)
        ]
    ]

    assert "once the run has ended: agentchord retry " in remedies[0]
    assert remedies[0].endswith(" --cost-budget USD, where USD is at least 1.00")
    assert "agentchord budgets set" in remedies[1]


def test_a_wait_for_redis_is_not_told_as_one_for_a_limit_that_was_used_up() -> None:
    wait = Wait(agent="a", waits_for="openai/default without_redis", seconds=9, longest_s=9)

    (found,) = explain_waited(history(agent("a"), waits=(wait,)))

    assert found.text == (
        "waited 9.0 s for Redis, which did not answer and counts the rate limit openai/default"
    )


def test_a_wait_that_is_named_has_the_only_remedy() -> None:
    run = history(
        agent("a", finished_at=at(10)), attempts=(attempt("a", 1, 10),), calls=(), waits=WAITS
    )

    _, longest = explain_time(run, timeline_of(run))

    assert longest.remedy == ""

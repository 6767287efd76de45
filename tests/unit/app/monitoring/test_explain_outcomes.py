"""Failures, agents that did not run, and repeated attempts, in sentences."""

from uuid import UUID

import pytest

from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import AuthenticationFailed
from app.monitoring.explain_outcomes import REPAIRS, explain_outcomes
from app.monitoring.findings import Reason
from app.monitoring.whole_run import PARTIAL
from tests.support.histories import (
    RUN_ID,
    agent,
    attempt,
    event,
    history,
    incomplete,
)


def test_a_failure_is_told_with_its_error_and_its_retries() -> None:
    broken = agent("a", status=AgentStatus.FAILED, retries=2, error="no such model")
    last = attempt("a", 0, 1, outcome="failed", error="no such model", error_class="NotFound")

    (found,) = explain_outcomes(history(broken, attempts=(last,)))

    assert found.reason is Reason.FAILED
    assert found.text == "ended failed after 2 retries: NotFound: no such model"
    assert found.remedy == f"agentchord retry {RUN_ID} {REPAIRS}"


def test_elements_and_inner_agents_without_a_whole_result_are_all_named() -> None:
    run = history(
        agent("handled", item_count=40, items_ended=40, items_failed=2, items_partial=9),
        agent("check", sub_run_partial=True),
        incomplete=(
            incomplete("handled", "partial", missing=11, item_count=40),
            *(incomplete(f"handled[{n}]", "partial") for n in range(9)),
            incomplete("handled[17]", "failed", "no", "BadRequest", 1),
            incomplete("handled[19]", "failed", "no", "BadRequest", 1),
            *(incomplete(f"handled[{n}]/draft", "skipped", "condition") for n in range(20, 40)),
            incomplete("check", "partial"),
        ),
        run={"status": WorkflowStatus.PARTIALLY_COMPLETED},
    )

    found = [f"{each.subject} {each.predicate}" for each in explain_outcomes(run)]

    assert run.run.shortfall == "2 elements failed, 9 elements partial, 1 sub-workflow partial"
    assert found == [
        f"the run ended partially_completed: {run.run.shortfall}",
        "handled completed in part: 11 of 40 elements have no whole result",
        "handled[0-8], check completed in part: not every agent of the sub-workflow completed",
        "handled[17, 19] ended failed after 1 retry: BadRequest: no",
        "handled[20-39]/draft did not run: condition",
    ]


def test_a_failure_of_a_known_class_comes_with_its_advice() -> None:
    broken = agent("a", status=AgentStatus.FAILED, error="no key")
    last = attempt("a", 0, 1, outcome="failed", error="no key", error_class="AuthenticationFailed")

    (found,) = explain_outcomes(history(broken, attempts=(last,)))

    assert found.remedy == (f"{AuthenticationFailed.advice}; agentchord retry {RUN_ID} {REPAIRS}")


def test_what_did_not_run_says_why() -> None:
    run = history(
        agent("up", status="cancelled", error="upstream failed: a", started_at=None),
        agent("stop", status="cancelled", error="cancelled by the user", started_at=None),
        agent("skip", status="skipped", error="condition is false: x > 1"),
        run={"status": WorkflowStatus.CANCELLED, "error": "cancelled by the user"},
    )

    found = {each.agents: (each.reason, each.text) for each in explain_outcomes(run)}

    assert found == {
        (): (Reason.RUN_ENDED, "ended cancelled: cancelled by the user"),
        ("up",): (Reason.UPSTREAM, "was cancelled: upstream failed: a"),
        ("stop",): (Reason.CANCELLED, "was cancelled: cancelled by the user"),
        ("skip",): (Reason.SKIPPED, "did not run: condition is false: x > 1"),
    }


def test_retries_recoveries_and_fallbacks_are_told() -> None:
    run = history(
        agent("a", retries=2),
        attempts=(
            attempt("a", 0, 1, outcome="failed", error="503", error_class="ServerFailure"),
            attempt("a", 1, 2, number=2, outcome="lost", worker="w7"),
            attempt("a", 3, 4, number=3),
        ),
        events=(
            event(
                "agent_fallback",
                1,
                agent="a",
                data={
                    "provider": "openai",
                    "model": "gpt-4o",
                    "error_class": "Overloaded",
                    "next_provider": "anthropic",
                    "next_model": "claude-haiku-4-5",
                },
            ),
        ),
    )

    assert [(each.reason, each.text) for each in explain_outcomes(run)] == [
        (Reason.RETRIED, "was retried once: 1 x ServerFailure; the last was 503"),
        (Reason.RECOVERED, "was started again because its worker had died: w7"),
        (
            Reason.FALLBACK,
            "went on with anthropic/claude-haiku-4-5 after Overloaded of openai/gpt-4o",
        ),
    ]


@pytest.mark.parametrize("path", ["a", "a[1]", "a/b", "a[1]/b[2]/c"])
@pytest.mark.parametrize("outcome", ["failed", "completed_in_part", "cancelled"])
def test_a_retry_of_the_outermost_run_is_proposed(path: str, outcome: str) -> None:
    outcome = PARTIAL if outcome == "completed_in_part" else outcome
    broken = incomplete(path, outcome, "no", "BadRequest")
    inner = {"part_of": UUID(int=8), "outermost": UUID(int=9)}

    (own,) = explain_outcomes(history(agent("a"), incomplete=(broken,)))
    (of_inner,) = explain_outcomes(history(agent("a"), incomplete=(broken,), run=inner))

    assert f"agentchord retry {RUN_ID} {REPAIRS}" in own.remedy
    assert f"agentchord retry {UUID(int=9)} {REPAIRS}, once that run has ended" in of_inner.remedy

import pytest

from app.domain.outcome import AgentCounts, failure_reason, final_status
from app.domain.status import WorkflowStatus


def counts(**counts: int) -> AgentCounts:
    return AgentCounts(**{"total": 10, "failed": 0, "critical_failed": 0} | counts)


@pytest.mark.parametrize("failed", range(6))
def test_up_to_half_of_the_agents_may_fail(failed: int) -> None:
    assert failure_reason(counts(failed=failed), allow_partial_completion=True) is None


def test_a_run_fails_when_more_than_half_of_its_agents_failed() -> None:
    reason = failure_reason(counts(failed=6), allow_partial_completion=True)

    assert reason == "more than half of the agents failed (6 of 10)"


def test_a_run_fails_when_a_critical_agent_failed() -> None:
    reason = failure_reason(counts(failed=1, critical_failed=1), allow_partial_completion=True)

    assert reason is not None
    assert "critical" in reason


def test_a_run_without_partial_completion_fails_with_its_first_agent() -> None:
    assert failure_reason(counts(failed=1), allow_partial_completion=False) is not None
    assert failure_reason(counts(cancelled=1), allow_partial_completion=False) is None


def test_a_run_is_partially_completed_when_anything_is_missing() -> None:
    assert final_status(counts()) is WorkflowStatus.COMPLETED
    assert final_status(counts(failed=1)) is WorkflowStatus.PARTIALLY_COMPLETED
    assert final_status(counts(cancelled=1)) is WorkflowStatus.PARTIALLY_COMPLETED


def test_items_count_with_their_agent_only() -> None:
    items = counts(failed_items=900)

    assert failure_reason(items, allow_partial_completion=True) is None
    assert final_status(items) is WorkflowStatus.PARTIALLY_COMPLETED


def test_a_run_fails_with_the_first_item_that_its_agent_cannot_do_without() -> None:
    reason = failure_reason(counts(decisive_items=1), allow_partial_completion=True)

    assert reason is not None
    assert reason.startswith("1 item failed of agents that need all items")

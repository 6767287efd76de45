"""An attempt that is handed back counts nowhere, so each way to such an end has a bound."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.status import AgentStatus
from app.domain.waits import LongWait
from app.errors import FunctionFailed
from tests.support.jobs import ID, agent_of, job_of
from workers.endings import (
    LONGEST_WAIT_S,
    MOST_DRAINS,
    SHORTEST_WAIT_S,
    interrupted,
    stopped,
    waiting,
)
from workers.inflight import Lease, Phase, StopReason
from workers.jobs import Job


def job() -> Job:
    lease = Lease(id=ID, attempt=1, task=None)  # type: ignore[arg-type]  # nothing is stopped
    return job_of(agent_of("gpt-4o"), lease=lease)


@given(wait_s=st.floats(min_value=-1e9, max_value=1e9))
def test_a_wait_ends_neither_at_once_nor_never(wait_s: float) -> None:
    ending = waiting(job(), LongWait(wait_s=wait_s, waits_for="a limit"))

    assert SHORTEST_WAIT_S <= ending.ready_in_s <= LONGEST_WAIT_S
    assert (ending.status, ending.outcome) == (AgentStatus.PENDING, "handed_back")


@pytest.mark.parametrize("reason", StopReason)
def test_only_a_drain_and_a_pause_hand_back_without_a_wait(reason: StopReason) -> None:
    ending = stopped(job(), reason)

    handed_back = ending is not None and ending.outcome == "handed_back"
    assert handed_back == (reason in (StopReason.DRAINED, StopReason.RUN_PAUSED))


@given(drained=st.integers(min_value=0, max_value=1000))
def test_an_agent_whose_code_stops_its_workers_is_quarantined(drained: int) -> None:
    stopped_job = job()
    stopped_job.lease.enter(Phase.CALLING)
    stopped_job.claimed = replace(stopped_job.claimed, drained=drained)

    ending = stopped(stopped_job, StopReason.DRAINED)

    assert ending is not None
    if drained < MOST_DRAINS:
        assert (ending.outcome, ending.error_class) == ("handed_back", "WorkerStopped")
        assert not ending.retry
        assert not ending.recovery
    else:
        assert (ending.outcome, ending.error_class) == ("failed", "RecoveriesExhausted")
        assert ending.status is AgentStatus.FAILED


def test_an_interrupted_attempt_fails_by_the_policy() -> None:
    error = interrupted(job(), asyncio.CancelledError())

    assert FunctionFailed.retriable
    assert str(error) == (
        "agent 'a' was interrupted by code of a user in its worker (CancelledError): functions, "
        "kinds and tools must cancel only their own tasks"
    )

"""The record that also makes the step of the run."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.status import AgentStatus
from app.storage.claims import Claim
from app.storage.records import Ending
from tests.support.jobs import CLAIMED
from workers.claims import Step
from workers.leaving import Leaving

STEP = Step(run_id=UUID(int=1), level=0, provider="openai", goes_on=True)
ENDING = Ending(
    run_id=STEP.run_id,
    name="a",
    status=AgentStatus.COMPLETED,
    outcome="completed",
    event="agent_completed",
)


def claim_of(count: int, *, alone: bool = True) -> Claim:
    return Claim(
        agents=(CLAIMED,) * count,
        more=False,
        other_provider=None,
        open=True,
        alone=alone,
        room=True,
    )


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_only_the_last_record_of_a_level_makes_the_step(claims: list[int]) -> None:
    leaving = Leaving(lambda: STEP)
    for count in claims:
        leaving.claimed(claim_of(count))

    steps = [leaving.step_after(ENDING) for _ in range(sum(claims))]

    assert steps == [None] * (sum(claims) - 1) + [STEP]


@pytest.mark.parametrize("status", [*AgentStatus])
def test_an_agent_that_may_run_again_or_ends_the_run_leaves_the_step_to_the_lane(
    status: AgentStatus,
) -> None:
    leaving = Leaving(lambda: STEP)
    leaving.claimed(claim_of(2))

    leaving.step_after(replace(ENDING, status=status))
    step = leaving.step_after(ENDING)

    assert (step is STEP) == (status in (AgentStatus.COMPLETED, AgentStatus.SKIPPED))


def test_an_attempt_without_an_ending_leaves_the_step_to_the_lane() -> None:
    leaving = Leaving(lambda: STEP)
    leaving.claimed(claim_of(2))

    leaving.step_after(None)

    assert leaving.step_after(ENDING) is None


def test_a_lane_beside_others_makes_no_step_with_its_records() -> None:
    leaving = Leaving(lambda: STEP)
    leaving.claimed(claim_of(1, alone=False))

    assert leaving.step_after(ENDING) is None


def test_an_inner_run_makes_no_step_with_its_records() -> None:
    leaving = Leaving(None)
    leaving.claimed(claim_of(1))

    assert leaving.step_after(ENDING) is None

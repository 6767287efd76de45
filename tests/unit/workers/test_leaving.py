"""The record that also makes the step of the run."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.domain.status import AgentStatus
from app.domain.workflow import Workflow
from app.storage.claims import Claim
from app.storage.records import Ending
from tests.support.jobs import CLAIMED, ID, job_of
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


def test_a_run_whose_steps_are_apart_makes_no_step_with_its_records() -> None:
    leaving = Leaving(None)
    leaving.claimed(claim_of(1))

    assert leaving.step_after(ENDING) is None


@pytest.mark.parametrize(
    ("agents", "ancestors", "steps"),
    [
        ([Agent(name="a", prompt_template="go", llm_config={"model": "gpt-4o"})], (), True),
        ([Agent(name="a", prompt_template="go", llm_config={"model": "gpt-4o"})], (ID,), False),
        (
            [
                Agent(name="b", prompt_template="go", llm_config={"model": "gpt-4o"}),
                Agent(
                    name="a",
                    prompt_template="{item}",
                    for_each="input.list",
                    llm_config={"model": "gpt-4o"},
                ),
            ],
            (),
            False,
        ),
    ],
    ids=["plain", "inner run", "with a list"],
)
@pytest.mark.anyio
async def test_steps_that_lock_or_collect_more_are_apart_from_records(
    agents: list[Agent], ancestors: tuple[UUID, ...], steps: bool
) -> None:
    run = replace(job_of(agents[0]).run, workflow=Workflow(name="w", agents=agents))

    assert replace(run, ancestors=ancestors).steps_with_records is steps

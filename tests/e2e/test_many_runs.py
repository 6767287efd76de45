"""A program that has a list starts all its runs in one call, and waits for all of them."""

import threading
import warnings

import pytest
from pydantic import BaseModel

from app import (
    Agent,
    Run,
    RunOptions,
    Workflow,
    enqueue,
    enqueue_many,
    enqueue_many_async,
    wait_all,
    wait_all_async,
)
from app.errors import SeveralMistakes, UnknownRun, WaitTimeout, WorkflowError
from tests.support.pace import scaled
from tests.support.stack import Stack

WAIT_S = scaled(60.0)


class Fact(BaseModel):
    topic: str


LEARN = Workflow(
    name="learn",
    agents=[
        Agent(
            name="learner",
            prompt_template='Learn {topic} [[sim:reply={{"topic": "{topic}"}}]]',
            llm_config={"model": "gpt-4o-mini"},
            output_schema=Fact,
        )
    ],
)
FAIL = Workflow(
    name="fail",
    agents=[
        Agent(
            name="failing",
            prompt_template="{topic} [[sim:error=400]]",
            llm_config={"model": "gpt-4o-mini"},
        )
    ],
)
TOPICS = [f"topic {number}" for number in range(30)]


def test_the_runs_of_a_list_end_with_states_and_results_in_order(stack: Stack) -> None:
    labels = RunOptions(labels={"batch": "7"})

    runs = enqueue_many((LEARN, {"topic": topic}, labels) for topic in TOPICS)
    bad = enqueue_many([(FAIL, {"topic": "a"})])
    states = wait_all([*runs, *bad, runs[0].id], timeout=WAIT_S)

    assert states == ["completed"] * 30 + ["failed", "completed"]
    assert [run.result("learner") for run in runs] == [Fact(topic=topic) for topic in TOPICS]
    assert {run.labels["batch"] for run in runs} == {"7"}


@pytest.mark.anyio
async def test_the_same_on_an_event_loop(stack: Stack) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = await enqueue_many_async([(LEARN, {"topic": topic}) for topic in TOPICS[:5]])
        assert await wait_all_async(runs, timeout=WAIT_S) == ["completed"] * 5

    with pytest.warns(RuntimeWarning, match="blocks the event loop") as caught:
        wait_all(runs)
    assert caught[0].filename == __file__


def test_the_keys_of_a_list_name_runs_once(stack: Stack) -> None:
    given = [(LEARN, {"topic": topic}, RunOptions(key=f"many {topic}")) for topic in TOPICS[:4]]

    first = enqueue(LEARN, {"topic": TOPICS[2]}, key=f"many {TOPICS[2]}")
    runs = enqueue_many(given)
    again = enqueue_many(given)

    assert [run.id for run in runs] == [run.id for run in again]
    assert runs[2].id == first.id
    assert wait_all(runs, timeout=WAIT_S) == ["completed"] * 4
    assert len(stack.simulator.ledger()) == 4


def test_a_mistake_in_the_midst_of_a_list_starts_nothing(stack: Stack) -> None:
    (before,) = stack.sql("SELECT count(*) AS runs FROM runs")

    with pytest.raises(SeveralMistakes, match=r"runs\[1\]: .*\n.*runs\[3\]: "):
        enqueue_many((LEARN, {"topic": 1} if place % 2 == 0 else {}) for place in range(5))
    with pytest.raises(WorkflowError, match=r"^runs\[1\] is 'learn': give \(workflow, input\)"):
        enqueue_many([(LEARN, {"topic": 1}), "learn"])  # type: ignore[list-item]
    with pytest.raises(UnknownRun):
        wait_all(["no id"])

    assert stack.sql("SELECT count(*) AS runs FROM runs") == [before]
    assert enqueue_many([]) == []
    assert wait_all([]) == []


def test_sixteen_threads_share_a_client_for_their_lists(stack: Stack) -> None:
    ended: list[str] = []

    def work(number: int) -> None:
        runs: list[Run] = enqueue_many([(LEARN, {"topic": f"{number}-{i}"}) for i in range(3)])
        ended.extend(wait_all(runs, timeout=WAIT_S))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)

    assert ended == ["completed"] * 48


def test_a_wait_for_a_list_ends_in_time_and_the_runs_go_on(stack: Stack) -> None:
    stack.simulator.configure(latency_s=1.0)
    runs = enqueue_many([(LEARN, {"topic": topic}) for topic in TOPICS[:2]])

    with pytest.raises(WaitTimeout, match="2 of 2 runs have not ended after 0 s"):
        wait_all(runs, timeout=0.0)

    assert wait_all(runs, timeout=WAIT_S) == ["completed"] * 2

"""The bus as services use it: the same events live, from the history, and from the run."""

import asyncio
from contextlib import aclosing, closing
from typing import Any
from uuid import uuid4

import pytest

from app import Agent, EventBus, Run, Workflow, enqueue
from tests.support.pace import scaled
from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("stack")
WAIT_S = scaled(30.0)


def finished_run(stack: Stack) -> tuple[Run, int]:
    """A run that has ended, and the id of the last event before it."""
    (row,) = stack.sql("SELECT coalesce(max(id), 0) AS id FROM events")
    config = {"model": "gpt-4o-mini", "max_tokens": 20}
    agents = [Agent(name=name, prompt_template="go", llm_config=config) for name in "ab"]
    run = enqueue(Workflow(name="watched", agents=agents))
    assert run.wait(timeout=WAIT_S) == "completed"
    return run, row["id"]


@pytest.mark.parametrize(
    ("group", "after", "problem"),
    [("", 0, "name of the service"), (None, 0, "name of the service"), ("a", -1, "id of an event")],
)
def test_what_makes_no_sense_is_refused(group: Any, after: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        next(EventBus().consume(group, after=after))


@pytest.mark.parametrize("stale_s", ["x", 0, None])
def test_a_time_that_is_none_is_refused(stale_s: Any) -> None:
    with pytest.raises(ValueError, match="give seconds above 0"):
        next(EventBus().consume("mailer", stale_s=stale_s))


@pytest.mark.parametrize("after", ["x", "12", 1.5, True, -1, 2**63])
def test_a_history_is_read_behind_an_id_and_nothing_else(after: Any) -> None:
    with pytest.raises(ValueError, match="give the id of an event"):
        EventBus().history(after=after)
    with pytest.raises(ValueError, match="give the id of an event"):
        Run(uuid4()).events(after=after)


def test_live_events_are_those_of_the_run_and_of_the_history(stack: Stack) -> None:
    run, before = finished_run(stack)
    expected = [(event.id, event.type) for event in run.events()]
    bus, group = EventBus(), uuid4().hex

    with closing(bus.consume(group, "one", after=before)) as events:
        told = [(event.id, event.type) for _, event in zip(expected, events, strict=False)]
    stored = [(event.id, event.type) for event in bus.history(after=before)]

    assert told == expected
    assert stored == expected
    assert [(event.id, event.type) for event in run.events(after=None)] == expected
    assert next(bus.history(after=None)) == next(bus.history())


def test_what_a_member_has_not_done_comes_again_to_it(stack: Stack) -> None:
    _, before = finished_run(stack)
    bus, group = EventBus(), uuid4().hex

    async def first_two() -> list[int]:
        found: list[int] = []
        async with (
            asyncio.timeout(WAIT_S),
            aclosing(bus.consume_async(group, "one", after=before)) as events,
        ):
            async for event in events:
                found.append(event.id)
                if len(found) == 2:
                    break
        return found

    first, again = asyncio.run(first_two()), asyncio.run(first_two())

    assert again[0] == first[1]

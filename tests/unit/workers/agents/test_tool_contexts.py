"""The key of a tool call stays the same over everything that repeats the call."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.llm.base import ToolCall
from app.tools.tool import ToolOutput
from tests.support.jobs import agent_of, job_of
from workers.agents.conversation import OpenTurn
from workers.agents.tool_contexts import function_context, tool_context
from workers.jobs import Job

DONE, FAILED = ToolOutput("paid", is_error=False), ToolOutput("gone", is_error=True)
#: The result of each call of a turn: completed, failed or unknown, or not known yet.
RESULTS = st.sampled_from([DONE, FAILED, None])
ASKED = st.lists(
    st.lists(st.tuples(st.sampled_from(["pay", "look"]), st.integers(1, 2), RESULTS), max_size=4),
    min_size=1,
    max_size=5,
)


def turn_of(*calls: tuple[str, int, ToolOutput | None]) -> OpenTurn:
    return OpenTurn(
        id=UUID(int=1),
        tool_calls=[
            ToolCall(id=f"call_{place}", name=name, arguments=f'{{"order": {order}}}')
            for place, (name, order, _) in enumerate(calls)
        ],
        answers={place: said for place, (_, _, said) in enumerate(calls) if said is not None},
    )


def made(agent: Agent, attempt: int = 1) -> Job:
    async def make() -> Job:
        return job_of(agent, attempt=attempt)

    return asyncio.run(make())


def keys(job: Job, turns: Sequence[OpenTurn]) -> list[str]:
    last = len(turns[-1].tool_calls)
    return [tool_context(job, turns, place).idempotency_key for place in range(last)]


@given(ASKED)
def test_two_calls_share_a_key_only_if_the_earlier_one_did_not_succeed(
    asked: list[list[tuple[str, int, ToolOutput | None]]],
) -> None:
    job, turns = made(agent_of("gpt-4o-mini")), [turn_of(*each) for each in asked]
    succeeded: dict[str, tuple[str, int]] = {}
    work: dict[str, tuple[str, int]] = {}

    for number, calls in enumerate(asked):
        of_turn = keys(job, turns[: number + 1])

        assert len(set(of_turn)) == len(of_turn)
        assert not succeeded.keys() & set(of_turn)
        for key, (name, order, said) in zip(of_turn, calls, strict=True):
            assert work.setdefault(key, (name, order)) == (name, order)
            if said is DONE:
                succeeded[key] = (name, order)


@given(ASKED, st.data())
def test_an_attempt_that_repeats_a_turn_finds_the_same_keys(
    asked: list[list[tuple[str, int, ToolOutput | None]]], data: st.DataObject
) -> None:
    first = made(agent_of("gpt-4o-mini"))
    again = made(agent_of("gpt-4o-mini"), attempt=2)
    turns = [turn_of(*each) for each in asked]
    # When the worker died, any of the results may have been stored.
    ended = [(name, order, data.draw(RESULTS)) for name, order, _ in asked[-1]]

    assert keys(first, turns) == keys(again, [*turns[:-1], turn_of(*ended)])


def test_a_call_that_failed_has_its_key_again_and_one_that_succeeded_has_not() -> None:
    job = made(agent_of("gpt-4o-mini"))
    unknown, failed, done = (turn_of(("pay", 7, said)) for said in (None, FAILED, DONE))

    (first,) = keys(job, [unknown])

    assert keys(job, [unknown, failed, done]) == [first]
    assert keys(job, [unknown, failed, done, unknown]) != [first]


def test_the_form_of_the_arguments_does_not_count() -> None:
    job = made(agent_of("gpt-4o-mini"))
    texts = ('{"a": 1, "b": 2}', '{"b":2,"a":1}', ' {"a":1,"b":2} ')
    turns = [
        OpenTurn(id=UUID(int=1), tool_calls=[ToolCall(id="c", name="pay", arguments=text)])
        for text in texts
    ]

    assert len({keys(job, [turn])[0] for turn in turns}) == 1


def test_another_agent_run_has_other_keys() -> None:
    job, turns = made(agent_of("gpt-4o-mini")), [turn_of(("pay", 7, None))]
    other = replace(job, claimed=replace(job.claimed, id=UUID(int=8)))

    assert keys(job, turns) != keys(other, turns)


def test_a_context_says_for_which_call_it_is() -> None:
    agent = replace(agent_of("gpt-4o-mini"), for_each={"mail": "mails", "order": "orders"})
    job = made(agent, attempt=3)
    job.claimed = replace(job.claimed, item_index=1, item={"mail": "hello", "order": [7]})
    job.run = replace(job.run, tenant="acme")

    context = tool_context(job, [turn_of(("look", 7, None), ("pay", 7, None))], 1)

    assert (context.run_id, context.workflow) == (str(job.run.run_id), "w")
    assert (context.agent, context.attempt, context.index) == ("a", 3, 1)
    assert (context.tenant, context.call_id) == ("acme", "call_1")
    assert context.element == {
        "mail": "hello",
        "order": [7],
        "item": {"mail": "hello", "order": [7]},
        "index": 1,
    }
    assert str(UUID(context.idempotency_key)) == context.idempotency_key


def test_the_key_of_a_function_depends_on_its_inputs_and_not_on_the_attempt() -> None:
    agent = Agent(name="a", kind="function", config={"function": "shop:pay"})
    jobs = [made(agent), made(agent, attempt=2), made(agent)]
    for job, seen in zip(jobs, ("x", "x", "y"), strict=True):
        job.seen = seen

    first, again, other = (function_context(job).idempotency_key for job in jobs)

    assert first == again != other

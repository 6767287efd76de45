"""The order in which options are called, and the error if none answers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from app import Agent, LLMResponse
from app.costs.pricing import Pricing
from app.errors import (
    AgentError,
    AgentTimeout,
    BadRequest,
    CircuitOpen,
    ConnectionFailed,
    Overloaded,
    UnknownModel,
)
from tests.support.jobs import ID, job_of
from workers.calls.base import CallOutcome, CallRequest
from workers.calls.fallback import FallbackRing
from workers.history import HistoryWriter
from workers.jobs import Job

pytestmark = pytest.mark.anyio

FIRST, SECOND, THIRD = "gpt-4o", "claude-haiku-4-5", "gpt-4o-mini"
ANSWER = LLMResponse(content="hi", model="m", input_tokens=1, output_tokens=1)


class Provider:
    """Answers or fails by a list of outcomes per model; the last outcome stays."""

    def __init__(self, **outcomes: list[AgentError | None]) -> None:
        self._outcomes = {name.replace("_", "-"): list(each) for name, each in outcomes.items()}
        self.called: list[tuple[str, bool]] = []

    async def call(self, request: CallRequest) -> CallOutcome:
        self.called.append((request.model, request.waits_at_circuit))
        outcomes = self._outcomes.get(request.model, [None])
        error = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        if error is not None:
            raise error
        return CallOutcome(response=ANSWER, call_id=ID)


def with_fallbacks(*fallbacks: str, **fields: Any) -> Job:
    agent = Agent(
        name="a",
        prompt_template="go",
        llm_config={"model": FIRST},
        fallbacks=[{"model": model} for model in fallbacks],
        **fields,
    )
    return job_of(agent)


class Unread:
    """A history that drops its events."""

    def note(self, job: Job, type_: str, data: Mapping[str, Any]) -> None:
        pass


def ring_around(provider: Provider) -> FallbackRing:
    history = cast(HistoryWriter, Unread())
    return FallbackRing(provider, pricing=Pricing(), history=history)


async def outcome_of(provider: Provider, job: Job) -> LLMResponse | AgentError:
    request = CallRequest(job=job, agent=job.agent, messages=[])
    try:
        return (await ring_around(provider).call(request)).response
    except AgentError as error:
        return error


async def test_without_fallbacks_the_call_is_passed_on() -> None:
    provider = Provider(gpt_4o=[Overloaded("busy")])

    assert isinstance(await outcome_of(provider, with_fallbacks()), Overloaded)
    assert provider.called == [(FIRST, True)]


async def test_no_call_waits_at_a_circuit_while_another_option_may_answer() -> None:
    provider = Provider(gpt_4o=[CircuitOpen("open")])

    assert await outcome_of(provider, with_fallbacks(SECOND)) is ANSWER
    assert provider.called == [(FIRST, False), (SECOND, False)]


async def test_with_all_circuits_open_the_first_one_is_waited_for() -> None:
    provider = Provider(gpt_4o=[CircuitOpen("open"), None], claude_haiku_4_5=[CircuitOpen("too")])

    assert await outcome_of(provider, with_fallbacks(SECOND)) is ANSWER
    assert provider.called == [(FIRST, False), (SECOND, False), (FIRST, True)]


async def test_who_does_not_name_open_circuits_waits_at_them() -> None:
    provider = Provider(gpt_4o=[Overloaded("busy")])

    await outcome_of(provider, with_fallbacks(SECOND, fallback_on=["Overloaded"]))

    assert provider.called == [(FIRST, True), (SECOND, True)]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([Overloaded("1"), ConnectionFailed("2"), BadRequest("3")], "1"),
        ([BadRequest("1"), Overloaded("2"), Overloaded("3")], "2"),
        ([CircuitOpen("1"), Overloaded("2"), CircuitOpen("3")], "2"),
        ([BadRequest("1"), BadRequest("2"), BadRequest("3")], "1"),
    ],
)
async def test_the_first_error_that_a_retry_may_help_against_is_the_failure(
    outcomes: list[AgentError], expected: str
) -> None:
    first, second, third = outcomes
    provider = Provider(gpt_4o=[first], claude_haiku_4_5=[second], gpt_4o_mini=[third])
    wanted = ["BadRequest", "CircuitOpen", "ConnectionFailed", "Overloaded"]

    failure = await outcome_of(provider, with_fallbacks(SECOND, THIRD, fallback_on=wanted))

    assert str(failure) == expected
    assert [model for model, _ in provider.called] == [FIRST, SECOND, THIRD]


async def test_an_error_that_is_not_named_ends_the_search() -> None:
    provider = Provider(gpt_4o=[Overloaded("1")], claude_haiku_4_5=[AgentTimeout("2")])

    failure = await outcome_of(provider, with_fallbacks(SECOND, THIRD))

    assert str(failure) == "1"
    assert [model for model, _ in provider.called] == [FIRST, SECOND]


async def test_no_time_left_means_no_further_call() -> None:
    provider = Provider(gpt_4o=[Overloaded("1")])
    job = with_fallbacks(SECOND)
    job.clock.left_s = 0.0

    assert str(await outcome_of(provider, job)) == "1"
    assert provider.called == [(FIRST, False)]


async def test_the_next_turn_begins_with_whom_the_last_one_ended() -> None:
    provider, job = Provider(gpt_4o=[Overloaded("1"), None]), with_fallbacks(SECOND)
    ring, request = ring_around(provider), CallRequest(job=job, agent=job.agent, messages=[])

    first = await ring.call(request)
    await ring.call(replace(request, option=first.option))

    assert [model for model, _ in provider.called] == [FIRST, SECOND, SECOND]


async def test_no_option_is_called_if_one_has_no_price() -> None:
    provider = Provider()

    assert isinstance(await outcome_of(provider, with_fallbacks("gpt-99")), UnknownModel)
    assert provider.called == []

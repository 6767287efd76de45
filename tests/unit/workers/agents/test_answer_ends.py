"""Nothing that was cut or refused is acted on in silence."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import Agent, LLMResponse, Workflow
from app.errors import AgentError, OutputInvalid, ToolError
from app.llm.base import ToolCall
from app.registration.output_schemas import OutputSchemas
from app.sandbox.processes import Sandbox
from app.storage.turns import StoredTurn, ToolState
from app.tools.registry import ToolRegistry
from app.tools.tool import tool
from tests.support.calls import call_of
from tests.support.jobs import ID, Written, job_of
from workers.agents.answer_ends import GO_ON, end_of
from workers.agents.attachments import Attachments
from workers.agents.conversation import CALL_CUT
from workers.agents.llm import LLMAgent, StoredTurns
from workers.agents.tool_turns import ToolTurns
from workers.calls.base import CallOutcome, CallRequest
from workers.jobs import Job

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "required": ["total"]}
CALLS = [
    ToolCall(id="call_1", name="pay", arguments='{"invoice": 7}'),
    ToolCall(id="call_2", name="pay", arguments='{"invoice": 8, "not'),
]
paid: list[int] = []


@tool
def pay(invoice: int = 0) -> str:
    """Pay an invoice."""
    paid.append(invoice)
    return "paid"


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    paid.clear()


def answer(text: str = "", finish: str = "stop", **fields: Any) -> LLMResponse:
    return LLMResponse(
        content=text, model="m", input_tokens=1, output_tokens=1, finish_reason=finish, **fields
    )


class Answers:
    """Calls that cost a dollar each and return the given answers in order.

    Attributes:
        heard: The messages of each call.
        unsettled: For each call, the number of earlier calls that were not settled before it.
    """

    def __init__(self, *answers: LLMResponse) -> None:
        self._answers = list(answers)
        self.heard: list[Sequence[Mapping[str, Any]]] = []
        self.unsettled: list[int] = []

    async def call(self, request: CallRequest) -> CallOutcome:
        settling = request.job.settling
        self.heard.append(list(request.messages))
        self.unsettled.append(len(settling.calls))
        call_id = UUID(int=len(self.heard))
        settling.note(call_of("m", call_id=call_id, budget_ids=(ID,), cost_usd=Decimal(1)))
        return CallOutcome(response=self._answers.pop(0), call_id=call_id)


class Stored:
    """The stored turns of an earlier attempt."""

    def __init__(self, *turns: StoredTurn) -> None:
        self._turns = turns

    async def submit(self, item: UUID) -> tuple[StoredTurn, ...]:
        return self._turns


def agent(**fields: Any) -> Agent:
    config = {"model": "gpt-4o", "max_tokens": 10}
    return Agent(name="a", prompt_template="go", llm_config=config, **fields)


def job(
    one: Agent, *, is_read: bool = False, records: Written | None = None, attempt: int = 1
) -> Job:
    """Return an attempt of an agent, alone or beside an agent that reads its output."""
    made = job_of(one, records=records, attempt=attempt)
    if is_read:
        reader = Agent(
            name="b", prompt_template="{a}", llm_config={"model": "gpt-4o"}, dependencies=["a"]
        )
        # A run is frozen, and only this test has a second agent.
        object.__setattr__(made.run, "workflow", Workflow(name="w", agents=[one, reader]))
    return made


async def run(of: Job, calls: Answers, *stored: StoredTurn) -> Any:
    nowhere = cast("AsyncEngine", None)
    llm = LLMAgent(
        calls=calls,
        registry=ToolRegistry([], {"pay": pay}),
        tool_turns=ToolTurns(engine=nowhere, max_output_bytes=1000),
        stored=cast("StoredTurns", Stored(*stored)),
        schemas=OutputSchemas(Sandbox()),
        max_output_bytes=1_000_000,
        attachments=Attachments(cast("Any", None), cast("Any", None)),
    )
    return await llm.run(of, "go")


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter"])
@pytest.mark.parametrize("text", ["", "a text"])
@pytest.mark.parametrize("calls", [None, CALLS])
def test_only_an_answer_without_a_text_and_calls_is_empty(
    finish: str, text: str, calls: list[ToolCall] | None
) -> None:
    is_empty = finish == "stop" and not text and not calls

    assert end_of(answer(text, finish, tool_calls=calls)) == ("empty" if is_empty else finish)


@pytest.mark.parametrize(("on_cut", "is_read"), [("fail", True), ("fail", False), (None, True)])
@pytest.mark.parametrize(
    ("response", "end"), [(answer("half", "length"), "length"), (answer(" "), "empty")]
)
async def test_a_cut_or_empty_answer_fails_where_the_whole_is_needed(
    on_cut: str | None, is_read: bool, response: LLMResponse, end: str
) -> None:
    attempt = job(agent(on_cut=on_cut), is_read=is_read)

    with pytest.raises(OutputInvalid, match="set on_cut to accept"):
        await run(attempt, Answers(response))

    assert attempt.finish_reason == end


@pytest.mark.parametrize(
    ("on_cut", "is_read"), [("accept", True), ("accept", False), (None, False)]
)
@pytest.mark.parametrize(
    ("response", "end"), [(answer("half", "length"), "length"), (answer(" "), "empty")]
)
async def test_a_cut_or_empty_answer_is_accepted_elsewhere_and_its_end_is_noted(
    on_cut: str | None, is_read: bool, response: LLMResponse, end: str
) -> None:
    attempt = job(agent(on_cut=on_cut), is_read=is_read)

    assert await run(attempt, Answers(response)) == response.content

    assert attempt.finish_reason == end


@pytest.mark.parametrize("text", ['{"total": 1}', '{"total": 1, "no'])
async def test_a_cut_answer_does_not_fit_a_schema_unless_the_agent_accepts_it(text: str) -> None:
    with pytest.raises(OutputInvalid, match="ends at max_tokens: raise its max_tokens"):
        await run(job(agent(output_schema=SCHEMA)), Answers(answer(text, "length")))

    lenient = job(agent(output_schema=SCHEMA, on_cut="accept"))
    if text.endswith("}"):
        assert await run(lenient, Answers(answer(text, "length"))) == {"total": 1}
    else:
        with pytest.raises(OutputInvalid, match="it ends at max_tokens: raise its max_tokens"):
            await run(lenient, Answers(answer(text, "length")))


async def test_an_empty_answer_to_a_schema_is_repaired_once() -> None:
    calls = Answers(answer(""), answer('{"total": 1}'))

    assert await run(job(agent(output_schema=SCHEMA)), calls) == {"total": 1}


@pytest.mark.parametrize("fields", [{}, {"output_schema": SCHEMA}, {"on_cut": "continue"}])
@pytest.mark.parametrize("calls", [None, CALLS])
async def test_a_refusal_fails_every_agent_with_its_words(
    fields: dict[str, Any], calls: list[ToolCall] | None
) -> None:
    refusal = answer("", "content_filter", metadata={"refusal": "I can't"}, tool_calls=calls)
    attempt = job(agent(tools=["pay"], **fields))

    with pytest.raises(OutputInvalid, match="the model refused to answer: I can't"):
        await run(attempt, Answers(refusal))

    assert attempt.finish_reason == "content_filter"
    assert paid == []


async def test_a_refused_repair_fails_with_its_words() -> None:
    calls = Answers(answer("no JSON"), answer("I can't", "content_filter"))

    with pytest.raises(OutputInvalid, match="the model refused to answer: I can't"):
        await run(job(agent(output_schema=SCHEMA)), calls)


async def test_a_continued_answer_is_the_joined_text_of_all_its_calls() -> None:
    calls = Answers(answer("The ", "length"), answer("whole ", "length"), answer("text."))
    attempt = job(agent(on_cut="continue"), is_read=True)

    assert await run(attempt, calls) == "The whole text."

    go_on = {"role": "user", "content": GO_ON}
    opening = [{"role": "user", "content": "go"}]
    first, second = ({"role": "assistant", "content": text} for text in ("The ", "whole "))
    assert calls.heard[-1] == [*opening, first, go_on, second, go_on]
    assert calls.unsettled == [0, 0, 0]
    assert attempt.finish_reason == "stop"


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([answer("a", "length")] * 3, "ends at max_tokens after 3 turns: raise its max_tokens or"),
        ([answer("", "length")], "before it has a text, so the model cannot go on: raise its max"),
        ([answer("a", "length"), answer("I can't", "content_filter")], "answer: I can't"),
        ([answer("a", "length"), answer("", "tool_calls", tool_calls=CALLS)], "asks for a tool"),
    ],
)
async def test_an_answer_that_cannot_be_continued_fails_with_the_remedy(
    answers: list[LLMResponse], problem: str
) -> None:
    with pytest.raises(AgentError, match=problem):
        await run(job(agent(on_cut="continue", max_turns=3, tools=["pay"])), Answers(*answers))

    assert paid == []


async def test_no_tool_call_of_a_cut_answer_runs_and_the_model_is_told() -> None:
    records = Written()
    cut = answer("", "length", tool_calls=CALLS)
    whole = answer("", "tool_calls", tool_calls=CALLS[:1])
    calls = Answers(cut, whole, answer("done"))

    assert await run(job(agent(tools=["pay"]), records=records), calls) == "done"

    assert paid == [7]
    asked, *told = calls.heard[1][1:]
    assert [call.arguments for call in asked["tool_calls"]] == ['{"invoice": 7}', "{}"]
    assert [(one["content"], one["is_error"]) for one in told] == [(CALL_CUT, True)] * 2
    first = records.given[0]
    assert first.turn is not None
    assert len(first.calls) == 1
    assert [(one.state, one.result) for one in first.tools] == [(ToolState.FAILED, CALL_CUT)] * 2
    assert first.tools[1].arguments == CALLS[1].arguments


async def test_a_later_attempt_goes_on_behind_a_cut_turn_in_the_same_way() -> None:
    records = Written()
    before = Answers(answer("", "length", tool_calls=CALLS), answer("done"))
    await run(job(agent(tools=["pay"]), records=records), before)
    turn = records.given[0].turn
    assert turn is not None
    stored = StoredTurn(turn=turn, calls={one.position: one for one in records.given[0].tools})
    after = Answers(answer("done"))

    assert await run(job(agent(tools=["pay"]), attempt=2), after, stored) == "done"

    assert after.heard[0] == before.heard[1]
    assert paid == []


async def test_cut_turns_count_against_max_turns_and_the_failure_names_the_remedy() -> None:
    cut = answer("", "length", tool_calls=CALLS)

    with pytest.raises(ToolError, match="after 2 turns, in an answer that ends at max_tokens: rai"):
        await run(job(agent(tools=["pay"], max_turns=2)), Answers(cut, cut))

    assert paid == []


@pytest.mark.parametrize("refusal", [["a"], {"why": "a"}, 5, None, "a"])
async def test_a_refusal_of_any_form_fails_the_agent_in_words(refusal: Any) -> None:
    refused = answer("", "content_filter", metadata={"refusal": refusal})

    with pytest.raises(OutputInvalid, match="refused to answer"):
        await run(job(agent()), Answers(refused))

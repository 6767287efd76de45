"""The handle of a run: typed results, one state, an event loop, and short errors."""

import asyncio
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from app import Agent, EventBus, Run, Workflow, enqueue, enqueue_async
from app.errors import AgentChordError, OutputInvalid, RunConflict, UnknownRun, WorkflowError
from tests.support.pace import scaled
from tests.support.stack import Stack

WAIT_S = scaled(30.0)
CALL: dict[str, Any] = {"llm_config": {"model": "gpt-4o-mini"}}


class Ticket(BaseModel):
    category: str
    usd: float


def reply(category: str = "refund", usd: float = 12.5) -> str:
    return f'[[sim:reply={{{{"category": "{category}", "usd": {usd}}}}}]]'


TRIAGE = Agent(name="triage", prompt_template=f"Sort {reply()}", output_schema=Ticket, **CALL)
REPLY = Agent(name="reply", prompt_template="Thank them", **CALL)


def ended(*agents: Agent, input_: dict[str, Any] | None = None) -> Run:
    run = enqueue(Workflow(name="tickets", agents=agents, allow_partial_completion=True), input_)
    run.wait(timeout=WAIT_S)
    return run


def test_the_result_of_an_agent_with_a_model_is_an_object_of_the_model(stack: Stack) -> None:
    run = ended(TRIAGE, REPLY)

    assert run.result("triage") == Ticket(category="refund", usd=12.5)
    assert run.result("reply") == run.outputs["reply"]
    assert Run(run.id).result("triage") == {"category": "refund", "usd": 12.5}
    assert Run(run.id).result("triage", Ticket) == run.result("triage")
    assert run.rerun("reply").result("triage") == run.result("triage")


def test_the_result_of_a_list_is_a_list_of_objects(stack: Stack) -> None:
    fields: dict[str, Any] = {"for_each": "input.all", "prompt_template": "Sort {item.text}"}
    texts = [{"text": f"{n} {reply(usd=n).replace('{{', '{').replace('}}', '}')}"} for n in (1, 2)]
    run = ended(
        Agent(name="mails", **fields, output_schema=Ticket, max_retries=0, **CALL),
        input_={"all": [*texts, {"text": "[[sim:status=400]]"}]},
    )

    assert run.result("mails") == [
        Ticket(category="refund", usd=1),
        Ticket(category="refund", usd=2),
        None,
    ]
    assert run.result("mails[1]") == Ticket(category="refund", usd=2)
    with pytest.raises(
        RunConflict, match=r"agent 'mails\[2\]' has no output, because it is failed"
    ):
        run.result("mails[2]")


def test_what_is_no_result_is_an_error_that_says_why(stack: Stack) -> None:
    run = ended(TRIAGE, Agent(name="refused", prompt_template="[[sim:status=400]]", **CALL))

    with pytest.raises(WorkflowError, match="has no agent 'triag'; did you mean 'triage'"):
        run.result("triag")
    with pytest.raises(RunConflict, match="'refused' has no output, because it is failed: "):
        run.result("refused")

    class Other(BaseModel):
        colour: str

    with pytest.raises(OutputInvalid, match="'triage' does not fit Other"):
        run.result("triage", Other)


@pytest.mark.anyio
async def test_one_await_reads_the_whole_state_and_events_follow_on_a_loop(stack: Stack) -> None:
    run = await enqueue_async(Workflow(name="tickets", agents=[TRIAGE]))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        types = [event.type async for event in run.aevents()]
        state = await run.state()

    assert (types[0], types[-1]) == ("run_created", "run_completed")
    assert state.status == "completed"
    assert state.error is None
    assert state.cost > 0
    assert state.outputs == {"triage": {"category": "refund", "usd": 12.5}}
    assert state.result("triage") == Ticket(category="refund", usd=12.5)
    assert state.results["triage"].is_success()


@pytest.mark.anyio
async def test_the_events_of_a_run_may_be_left_early(stack: Stack) -> None:
    run = await enqueue_async(Workflow(name="tickets", agents=[TRIAGE]))
    events = run.aevents()

    assert (await anext(events)).type == "run_created"
    await events.aclose()
    waiting = asyncio.ensure_future(anext(EventBus().consume_async("nobody")))
    waiting.cancel()
    await asyncio.wait([waiting])

    assert await run.wait_async(WAIT_S) == "completed"


BLOCKING = ["status", "error", "cost", "labels", "outputs", "context", "results", "record"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", [*BLOCKING, "wait", "cancel", "events", "incomplete"])
async def test_what_blocks_a_loop_says_so_and_names_the_line(stack: Stack, name: str) -> None:
    run = await enqueue_async(Workflow(name="tickets", agents=[TRIAGE]))
    await run.wait_async(WAIT_S)

    with pytest.warns(RuntimeWarning, match=r"await run\.state\(\)") as caught:
        getattr(run, name) if name in BLOCKING else getattr(run, name)()

    assert [warning.filename for warning in caught] == [__file__]


def test_every_property_and_method_of_a_run_that_blocks_is_tried() -> None:
    waits = {"wait_async", "state", "aevents", "id"}
    of_errors = {"pause", "resume", "retry_failed", "rerun", "result", "to_workflow"}
    public = {name for name in vars(Run) if not name.startswith("_")}

    assert public - waits - of_errors == {*BLOCKING, "wait", "cancel", "events", "incomplete"}


def test_a_mistake_in_a_program_raises_one_short_traceback(stack: Stack) -> None:
    unpriced = Agent(name="a", prompt_template="go", llm_config={"model": "gpt-99"})
    unknown = Run("01a22b4c-f0f9-77a7-aca8-9d927ad6fb97")
    mistakes: dict[str, Callable[[], object]] = {
        "gpt-99": lambda: enqueue(Workflow(name="w", agents=[unpriced])),
        "topic": lambda: enqueue(
            Workflow(name="w", agents=[Agent(name="a", prompt_template="{topic}", **CALL)])
        ),
        "no run has the id": lambda: unknown.status,
        "see `agentchord runs`": lambda: list(unknown.events()),
    }

    for words, mistake in mistakes.items():
        with pytest.raises(AgentChordError) as caught:
            mistake()
        told = "".join(traceback.format_exception(caught.value))
        assert told.count("Traceback") == 1, told
        assert told.count('File "') <= 7, told
        assert words in told.splitlines()[-1]


@pytest.mark.anyio
async def test_a_mistake_on_a_loop_is_as_short(stack: Stack) -> None:
    with pytest.raises(UnknownRun) as caught:
        await Run("01a22b4c-f0f9-77a7-aca8-9d927ad6fb97").state()

    told = "".join(traceback.format_exception(caught.value))
    assert told.count("Traceback") == 1
    assert told.count('File "') <= 5

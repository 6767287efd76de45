"""A user's program: it enqueues a run, waits for it, reads it and stops it; and its mistakes."""

import asyncio
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue, enqueue_async
from app.errors import UnknownModel, UnknownRun, WaitTimeout, WorkflowError
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import Stack, run_stack
from tests.support.waiting import wait_until

AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
WAIT_S = scaled(30.0)


def agent(name: str, prompt: str = "go", *dependencies: str, **fields: Any) -> Agent:
    fields.setdefault("llm_config", {"model": "gpt-4o-mini"})
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def workflow(*agents: Agent, **rules: Any) -> Workflow:
    return Workflow(name="api", agents=agents, **rules)


CHAIN = workflow(
    agent("extractor", 'Answer {invoice} [[sim:reply={{"vendor": "Acme", "total": 12}}]]'),
    agent(
        "writer",
        "Thank {extractor.vendor} for {extractor.total}",
        "extractor",
        llm_config={"model": "claude-haiku-4-5"},
    ),
)


def test_a_run_ends_with_outputs_results_and_its_cost(stack: Stack) -> None:
    run = enqueue(CHAIN, input={"invoice": "number 7"})

    status = run.wait(timeout=WAIT_S)

    assert status == run.status == "completed"
    assert run.outputs["extractor"] == '{"vendor": "Acme", "total": 12}'
    assert run.outputs.keys() == {"extractor", "writer"}
    assert {name: result.status.value for name, result in run.results.items()} == {
        "extractor": "completed",
        "writer": "completed",
    }
    assert run.cost == sum(cost_by_agent(stack, run).values())
    assert run.error is None


@pytest.mark.anyio
async def test_of_many_enqueued_at_once_each_succeeds_or_fails_for_itself(stack: Stack) -> None:
    unpriced = workflow(agent("a", llm_config={"model": "gpt-99"}))
    plans = [CHAIN, unpriced, CHAIN, workflow(agent("a"))]

    made = await asyncio.gather(
        *(
            enqueue_async(plan, input={"invoice": "9"} if plan is CHAIN else {})
            for plan in plans * 5
        ),
        return_exceptions=True,
    )

    assert [isinstance(each, Run) for each in made] == [plan is not unpriced for plan in plans * 5]
    assert all(isinstance(each, UnknownModel) for each in made[1::4])
    runs = [each for each in made if isinstance(each, Run)]
    assert len({run.id for run in runs}) == 15
    assert {await run.wait_async(timeout=WAIT_S) for run in runs} == {"completed"}


def test_a_prompt_reaches_into_the_json_of_an_earlier_answer(stack: Stack) -> None:
    run = enqueue(CHAIN, input={"invoice": "number 8"})

    run.wait(timeout=WAIT_S)

    prompts = [record["prompt"] for record in stack.simulator.ledger()]
    assert prompts[-1] == "Thank Acme for 12"


def test_any_process_can_make_a_handle_of_a_run(stack: Stack) -> None:
    run = enqueue(CHAIN, input={"invoice": "number 9"})
    program = f"from app import Run; run = Run({run.id!r}); print(run.wait(20), run.cost)"

    done = stack.python("-c", program)

    assert done.stdout.split() == ["completed", str(run.cost)], done.stderr


def test_events_tell_the_history_in_order_and_resume_from_any_of_them(stack: Stack) -> None:
    run = enqueue(CHAIN, input={"invoice": "number 10"})

    events = list(run.events())

    assert [(event.type, event.data.get("agent")) for event in events] == [
        ("run_created", None),
        ("run_started", None),
        ("agent_started", "extractor"),
        ("agent_completed", "extractor"),
        ("agent_started", "writer"),
        ("agent_completed", "writer"),
        ("run_completed", None),
    ]
    assert all(one.id < next_.id and one.at <= next_.at for one, next_ in pairwise(events))
    assert list(run.events(after=events[2].id)) == events[3:]


@pytest.mark.anyio
async def test_a_program_on_an_event_loop_enqueues_and_waits_without_blocking_it(
    stack: Stack,
) -> None:
    run = await enqueue_async(CHAIN, {"invoice": "number 11"})

    assert await run.wait_async(timeout=WAIT_S) == "completed"


def test_waiting_may_end_before_the_run_does(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.6)
    run = enqueue(workflow(agent("slow")))

    with pytest.raises(WaitTimeout, match="the run goes on"):
        run.wait(timeout=0.1)

    assert run.wait(timeout=WAIT_S) == "completed"


def test_no_more_agents_run_at_once_than_the_workflow_allows(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.1)
    models = ["gpt-4o-mini", "claude-haiku-4-5"]
    agents = [agent(f"a{n}", llm_config={"model": models[n % 2]}) for n in range(12)]

    run = enqueue(workflow(*agents, max_parallel_agents=3))

    assert run.wait(timeout=WAIT_S) == "completed"
    assert stack.simulator.summary()["peak_in_flight"] == 3


def test_cancelling_closes_the_calls_in_flight_and_starts_no_more(stack: Stack) -> None:
    run = enqueue(
        workflow(
            agent("hangs", "[[sim:hang]]"),
            agent("beside", "[[sim:hang]]", llm_config={"model": "claude-haiku-4-5"}),
            agent("later", "{hangs}", "hangs"),
        )
    )
    wait_until(lambda: stack.simulator.summary()["in_flight"] == 2, what="two calls are out")
    cancelled_at = time.monotonic()

    assert run.cancel() is True

    status = run.wait(timeout=WAIT_S)
    assert time.monotonic() - cancelled_at < at_this_pace(5)
    assert status == "cancelled"
    assert {result.status.value for result in run.results.values()} == {"cancelled"}
    assert stack.simulator.summary()["disconnected"] == 2
    assert [record["status"] for record in stack.simulator.ledger()] == [499, 499]
    assert kinds(stack, run) == {"unconfirmed": 2}


def test_cancelling_twice_or_too_late_is_harmless(stack: Stack) -> None:
    run = enqueue(workflow(agent("quick")))
    run.wait(timeout=WAIT_S)

    assert run.cancel() is False
    assert run.status == "completed"


def test_a_failure_that_passes_is_retried_and_every_try_is_in_the_ledger(stack: Stack) -> None:
    prompt = "[[sim:status=500,times=1]][[sim:status=429,times=2]]"

    run = enqueue(workflow(agent("stubborn", prompt, retry_policy=AT_ONCE)))

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.results["stubborn"].retry_count == 2
    rows = stack.sql("SELECT outcome FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)
    assert [row["outcome"] for row in rows] == ["ServerFailure", "RateLimited", "ok"]


def test_dependents_of_a_failed_agent_are_cancelled_and_the_others_complete(stack: Stack) -> None:
    run = enqueue(
        workflow(
            agent("refused", "[[sim:status=400]]"),
            agent("below", "{refused}", "refused"),
            agent("beside"),
            agent("tolerant", "Without {refused}", "refused", accept_missing_inputs=True),
        )
    )

    assert run.wait(timeout=WAIT_S) == "partially_completed"
    assert {name: result.status.value for name, result in run.results.items()} == {
        "refused": "failed",
        "below": "cancelled",
        "beside": "completed",
        "tolerant": "completed",
    }
    assert run.results["below"].error == "upstream failed: refused"
    assert stack.simulator.ledger()[-1]["prompt"] == "Without null"


def test_an_agent_that_could_exceed_its_limit_makes_no_call(stack: Stack) -> None:
    run = enqueue(workflow(agent("expensive", cost_limit=0.0), agent("cheap")))

    assert run.wait(timeout=WAIT_S) == "partially_completed"
    assert run.results["expensive"].status == "budget_exceeded"
    assert "raise the limit" in str(run.results["expensive"].error)
    assert kinds(stack, run) == {"actual": 1}


def test_a_run_fails_when_a_critical_agent_does(stack: Stack) -> None:
    run = enqueue(
        workflow(agent("vital", "[[sim:status=400]]", priority=8), agent("a"), agent("b"))
    )

    assert run.wait(timeout=WAIT_S) == "failed"
    assert run.error == "1 critical agent (priority 8 or more) failed"


def test_a_run_that_takes_too_long_is_stopped(stack: Stack) -> None:
    run = enqueue(workflow(agent("endless", "[[sim:hang]]"), timeout=0.5))

    assert run.wait(timeout=WAIT_S) == "failed"
    assert run.error == "the run's timeout of 0.5 s is over"


@pytest.fixture
def nothing_stored(stack: Stack) -> Iterator[None]:
    """A refusal leaves no run and no workflow behind."""
    count = "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM workflows) AS rows"
    before = stack.sql(count)
    yield
    assert stack.sql(count) == before


def test_a_cycle_is_refused_with_its_path(nothing_stored: None) -> None:
    with pytest.raises(WorkflowError, match="cycle: a -> c -> b -> a"):
        workflow(agent("a", "go", "c"), agent("b", "go", "a"), agent("c", "go", "b"))


def test_a_model_without_a_price_is_refused_before_anything_is_stored(nothing_stored: None) -> None:
    with pytest.raises(UnknownModel, match="no price is known for model 'gpt-99'"):
        enqueue(workflow(agent("a", llm_config={"model": "gpt-99"})))


def test_a_model_of_no_known_provider_is_refused_with_the_remedy(nothing_stored: None) -> None:
    with pytest.raises(WorkflowError, match=r"agent 'a': .*unknown model 'my-own'.*provider"):
        enqueue(workflow(agent("a", llm_config={"model": "my-own"})))


def test_a_placeholder_without_a_value_is_refused_before_any_call(nothing_stored: None) -> None:
    with pytest.raises(
        WorkflowError, match=r"agent 'extractor': .*'invoice'.*did you mean 'invoce'"
    ):
        enqueue(CHAIN, input={"invoce": "number 12"})


def test_an_input_that_is_not_json_is_refused_with_its_path(nothing_stored: None) -> None:
    with pytest.raises(WorkflowError, match=r"input\.invoice\.total .*Decimal"):
        enqueue(CHAIN, input={"invoice": {"total": Decimal(1)}})


def test_an_id_of_no_run_is_an_unknown_run(stack: Stack) -> None:
    with pytest.raises(UnknownRun, match="agentchord runs"):
        _ = Run("01900000-0000-7000-8000-000000000000").status


def test_an_unreachable_postgres_is_one_clear_error(stack: Stack) -> None:
    program = (
        "import app, app.errors\n"
        "agent = app.Agent(name='a', prompt_template='go', llm_config={'model': 'gpt-4o'})\n"
        "try:\n    app.enqueue(app.Workflow(name='w', agents=[agent]))\n"
        "except app.errors.ServiceUnavailable as error:\n    print(error)\n"
    )
    elsewhere = "postgresql://user:secret@127.0.0.1:9/name"

    done = stack.python("-c", program, DATABASE_URL=elsewhere)

    assert done.stdout.startswith("Postgres at 127.0.0.1:9 (database 'name') cannot be reached"), (
        done
    )
    assert "check DATABASE_URL" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_without_an_api_key_an_agent_fails_with_the_remedy_and_calls_nobody(tmp_path: Path) -> None:
    program = (
        "from app import Agent, Workflow, enqueue\n"
        "agent = Agent(name='a', prompt_template='go', llm_config={'model': 'gpt-4o'})\n"
        "run = enqueue(Workflow(name='w', agents=[agent]))\n"
        "print(run.wait(30), run.results['a'].error, run.cost, sep='|')\n"
    )

    with run_stack(tmp_path, OPENAI_API_KEY="") as stack:
        done = stack.python("-c", program)
        served = stack.simulator.ledger()

    assert done.stdout == "failed|no API key for openai: set OPENAI_API_KEY|0\n", done.stderr
    assert served == []


def cost_by_agent(stack: Stack, run: Run) -> dict[str, Decimal]:
    rows = stack.sql(
        "SELECT agent, sum(cost_usd) AS usd FROM cost_entries WHERE run_id = %s GROUP BY agent",
        run.id,
    )
    return {row["agent"]: row["usd"] for row in rows}


def kinds(stack: Stack, run: Run) -> dict[str, int]:
    """Entries of a run by kind."""
    rows = stack.sql(
        "SELECT kind, count(*) AS n FROM cost_entries WHERE run_id = %s GROUP BY kind", run.id
    )
    return {row["kind"]: row["n"] for row in rows}

"""A retry pays for what failed, and for what rests on changed inputs; for nothing else."""

from collections import Counter
from typing import Any

import pytest

from app import Agent, Run, Workflow, enqueue
from app.errors import WorkflowError
from tests.support.commands import cli
from tests.support.pace import scaled
from tests.support.stack import Stack

WAIT_S = scaled(60.0)
ONCE = "[[sim:status=400,times=1]]"
ALWAYS = "[[sim:status=400]]"


def agent(name: str, prompt: str, *dependencies: str, **fields: Any) -> Agent:
    fields.setdefault("llm_config", {"model": "claude-haiku-4-5", "max_tokens": 50})
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def echo(text: str) -> str:
    """A prompt that the simulator answers with a text."""
    return f"[[sim:reply={text}]]"


def prompts(stack: Stack, after: int = 0) -> Counter[str]:
    """The prompts of the requests that have reached the simulator, by their first word."""
    return Counter(record["prompt"].split()[0] for record in stack.simulator.ledger()[after:])


def rows_of(stack: Stack, run: Run) -> dict[str, tuple[Any, Any]]:
    """The output and the cost of each completed agent run, with those of inner runs."""
    rows = stack.sql(
        """
        SELECT r.id::text || a.name AS name, a.output, a.spent_usd
        FROM agent_runs a JOIN runs r ON r.id = a.run_id
        WHERE (r.id = %s OR r.ancestors @> ARRAY[%s::uuid]) AND a.status = 'completed'
            AND a.error_class IS NULL
        """,
        run.id,
        run.id,
    )
    return {row["name"]: (row["output"], row["spent_usd"]) for row in rows}


ONE_MAIL = Workflow(
    name="one mail",
    agents=[
        agent("classify", "classify {item.id} " + echo("kind {item.id}")),
        agent("draft", "draft {item.id} {item.text} for {classify}", "classify"),
    ],
)


def test_a_retry_of_nine_partial_elements_of_forty_pays_for_these_and_their_dependents(
    stack: Stack,
) -> None:
    handle = Agent(
        name="handled", kind="workflow", config={"workflow": ONE_MAIL}, for_each="input.mails"
    )
    workflow = Workflow(
        name="mails",
        agents=[
            handle,
            agent("weather", "weather of today"),
            agent("summary", "summary of {handled}", "handled"),
            agent("letter", "letter on {summary}", "summary"),
            agent("aside", "aside about {weather}", "weather"),
        ],
        max_parallel_agents=50,
    )
    mails = [{"id": n, "text": ONCE if n % 4 == 1 and n < 36 else "hello"} for n in range(40)]
    run = enqueue(workflow, {"mails": mails})
    assert run.wait(timeout=WAIT_S) == "partially_completed"
    paid, before = len(stack.simulator.ledger()), rows_of(stack, run)
    spent = run.cost

    assert run.retry_failed()

    assert run.wait(timeout=WAIT_S) == "completed"
    assert prompts(stack, paid) == {"draft": 9, "summary": 1, "letter": 1}
    after = rows_of(stack, run)
    changed = {f"{run.id}{name}" for name in ("handled", "summary", "letter")}
    assert {name: row for name, row in before.items() if name not in changed} == {
        name: after[name] for name in before if name not in changed
    }
    assert all(one["draft"] for one in run.outputs["handled"])
    assert run.cost > spent
    assert not run.retry_failed()


def test_only_the_elements_whose_inputs_changed_follow_in_a_second_list(stack: Stack) -> None:
    workflow = Workflow(
        name="two lists",
        agents=[
            agent("triage", "triage {item} " + echo("kind {index}"), for_each="mails"),
            agent("reply", "reply to {item} " + echo("dear {item}"), "triage", for_each="triage"),
            agent("report", "report on {reply}", "reply"),
        ],
    )
    run = enqueue(workflow, {"mails": ["a", f"b {ONCE}", "c", "d"]})
    assert run.wait(timeout=WAIT_S) == "partially_completed"
    assert run.outputs["triage"] == ["kind 0", None, "kind 2", "kind 3"]
    paid = len(stack.simulator.ledger())

    assert run.retry_failed()

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.outputs["reply"] == [f"dear kind {n}" for n in range(4)]
    assert prompts(stack, paid) == {"triage": 1, "reply": 1, "report": 1}


def test_what_fails_again_costs_its_own_call_and_no_dependent(stack: Stack) -> None:
    workflow = Workflow(
        name="broken",
        agents=[
            agent("each", "each {item}", for_each="items"),
            agent("report", "report on {each}", "each"),
        ],
    )
    run = enqueue(workflow, {"items": ["a", ALWAYS, "c"]})
    assert run.wait(timeout=WAIT_S) == "partially_completed"
    report, paid = run.results["report"], len(stack.simulator.ledger())

    assert run.retry_failed()

    assert run.wait(timeout=WAIT_S) == "partially_completed"
    assert prompts(stack, paid) == {"each": 1}
    assert run.results["report"] == report


def test_an_agent_whose_prompt_stays_the_same_keeps_its_result(stack: Stack) -> None:
    workflow = Workflow(
        name="first only",
        agents=[
            agent("each", "each {item}", for_each="items"),
            agent("first", "first is {each[0]}", "each"),
            agent("later", "later {first}", "first"),
        ],
    )
    run = enqueue(workflow, {"items": ["a", ONCE]})
    run.wait(timeout=WAIT_S)
    outputs, paid = run.outputs, len(stack.simulator.ledger())

    assert run.retry_failed()

    assert run.wait(timeout=WAIT_S) == "completed"
    assert prompts(stack, paid) == {"each": 1}
    assert (run.outputs["first"], run.outputs["later"]) == (outputs["first"], outputs["later"])
    (kept,) = [event for event in run.events() if event.data.get("kept")]
    assert kept.data["agent"] == "first"


def test_one_element_is_repaired_alone(stack: Stack) -> None:
    workflow = Workflow(name="one", agents=[agent("each", "each {index} {item}", for_each="items")])
    run = enqueue(workflow, {"items": [f"x {ONCE}", f"y {ONCE}", "z"]})
    run.wait(timeout=WAIT_S)
    paid = len(stack.simulator.ledger())

    retried = run.retry_failed(agent="each[1]")
    ended = run.wait(timeout=WAIT_S)
    nothing = cli(stack, "retry", run.id, "each[2]")

    assert retried
    assert ended == "partially_completed"
    assert [output is None for output in run.outputs["each"]] == [True, False, False]
    assert prompts(stack, paid) == {"each": 1}
    assert "has nothing to retry in each[2]: it is partially_completed" in nothing.stdout, (
        nothing.stderr
    )
    with pytest.raises(WorkflowError, match=r"has 3 items, from each\[0\] to each\[2\]"):
        run.retry_failed(agent="each[3]")
    with pytest.raises(WorkflowError, match="did you mean 'each'"):
        run.retry_failed(agent="eech")


def test_a_rerun_of_one_element_is_a_run_that_pays_for_it_and_what_reads_it(stack: Stack) -> None:
    workflow = Workflow(
        name="again",
        agents=[
            agent("each", "each {item}", for_each="items"),
            agent("reply", "reply to {item}", "each", for_each="each"),
            agent("report", "report on {reply}", "reply"),
            agent("aside", "aside"),
        ],
    )
    run = enqueue(workflow, {"items": ["a", "b [[sim:output_tokens=5,times=1]]", "c"]})
    assert run.wait(timeout=WAIT_S) == "completed"
    outputs, paid = run.outputs, len(stack.simulator.ledger())

    again = run.rerun("each[1]")

    assert again.wait(timeout=WAIT_S) == "completed"
    assert prompts(stack, paid) == {"each": 1, "reply": 1, "report": 1}
    assert run.outputs == outputs
    for name in ("each", "reply"):
        same = [old == new for old, new in zip(outputs[name], again.outputs[name], strict=True)]
        assert same == [True, False, True]
    assert again.outputs["aside"] == outputs["aside"]
    assert again.record.rerun_from == "each[1]"


def test_a_sub_workflow_whose_input_changed_pays_for_the_agents_that_read_the_change(
    stack: Stack,
) -> None:
    inner = Workflow(
        name="inner",
        agents=[
            agent("constant", "constant {letter}"),
            agent("reading", "reading {each}"),
            agent("both", "both {constant} {reading}", "constant", "reading"),
        ],
    )
    workflow = Workflow(
        name="around",
        agents=[
            agent("each", "each {item}", for_each="items"),
            Agent(name="check", kind="workflow", config={"workflow": inner}, dependencies=["each"]),
            agent("end", "end {check}", "check"),
        ],
    )
    run = enqueue(workflow, {"items": ["a", ONCE], "letter": "x"})
    run.wait(timeout=WAIT_S)
    paid = len(stack.simulator.ledger())

    assert run.retry_failed()

    assert run.wait(timeout=WAIT_S) == "completed"
    assert prompts(stack, paid) == {"each": 1, "reading": 1, "both": 1, "end": 1}

"""Lists and sub-workflows on the whole stack."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app import Agent, Workflow, enqueue
from app.client.process import process
from app.errors import WorkflowError
from tests.support.pace import scaled
from tests.support.stack import Stack
from tests.support.waiting import wait_until

WAIT_S = scaled(60.0)


def agent(name: str, prompt: str = "go", *dependencies: str, **fields: Any) -> Agent:
    fields.setdefault("llm_config", {"model": "claude-haiku-4-5", "max_tokens": 50})
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def echo(text: str) -> str:
    """A prompt that the simulator answers with a text."""
    return f"[[sim:reply={text}]]"


def test_one_agent_run_for_each_document_and_their_answers_in_order(stack: Stack) -> None:
    workflow = Workflow(
        name="screening",
        agents=[
            agent("screen", echo("{index} is {item.name}"), for_each="input.documents"),
            agent("report", "All: {screen}", "screen"),
        ],
        max_parallel_agents=50,
    )
    documents = [{"name": f"d{n}"} for n in range(120)]

    run = enqueue(workflow, {"documents": documents})

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.outputs["screen"] == [f"{n} is d{n}" for n in range(120)]
    assert run.outputs.keys() == {"screen", "report"}
    assert len(stack.simulator.ledger()) == 121
    results = run.results
    assert results["screen[7]"].output == "7 is d7"
    assert results["screen"].metadata["items"] == 120
    assert Decimal(str(results["screen"].cost + results["report"].cost)) == pytest.approx(run.cost)


def test_a_list_may_be_what_a_model_answered(stack: Stack) -> None:
    workflow = Workflow(
        name="topics",
        agents=[
            agent("list", echo('{{"topics": ["a", "b", "c"]}}')),
            agent("write", echo("on {item}"), "list", for_each="list.topics"),
        ],
    )

    run = enqueue(workflow)

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.outputs["write"] == ["on a", "on b", "on c"]


def test_an_empty_list_is_an_empty_result_without_a_call(stack: Stack) -> None:
    workflow = Workflow(name="none", agents=[agent("each", "{item}", for_each="documents")])

    run = enqueue(workflow, {"documents": []})

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.outputs == {"each": []}
    assert stack.simulator.ledger() == []


def test_each_item_fails_alone_and_a_retry_runs_it_again(stack: Stack) -> None:
    fragile = agent("each", "{item}", for_each="prompts", max_retries=0)
    workflow = Workflow(name="fragile", agents=[fragile])

    run = enqueue(workflow, {"prompts": ["one", "[[sim:status=400]]", "three"]})

    assert run.wait(timeout=WAIT_S) == "partially_completed"
    assert [output is None for output in run.outputs["each"]] == [False, True, False]
    calls = len(stack.simulator.ledger())
    assert run.retry_failed()
    run.wait(timeout=WAIT_S)
    assert len(stack.simulator.ledger()) == calls + 1


def test_what_is_no_list_is_refused_before_anything_is_stored(stack: Stack) -> None:
    workflow = Workflow(name="text", agents=[agent("each", "{item}", for_each="documents")])

    with pytest.raises(WorkflowError, match="for_each 'documents' is 'text', not a list"):
        enqueue(workflow, {"documents": "text"})


INNER = Workflow(
    name="invoice check",
    agents=[
        agent("read", echo("read {document}")),
        agent("judge", echo("{read} is fine"), "read"),
    ],
)


def test_a_sub_workflow_is_one_agent_with_a_run_and_costs_of_its_own(stack: Stack) -> None:
    workflow = Workflow(
        name="payment",
        agents=[
            Agent(name="check", kind="workflow", config={"workflow": INNER}),
            agent("pay", echo("{check.judge}!"), "check"),
        ],
    )

    run = enqueue(workflow, {"document": "d"}, tenant="acme")

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.outputs["check"] == {"read": "read d", "judge": "read d is fine"}
    assert run.outputs["pay"] == "read d is fine!"
    inner = run.results["check"].metadata["run_id"]
    costs = stack.sql(
        "SELECT run_id::text, tenant, cost_usd FROM costs_by_run WHERE run_id = ANY(%s)",
        [run.id, inner],
    )
    assert {row["run_id"]: row["tenant"] for row in costs} == {run.id: "acme", inner: "acme"}
    assert run.cost == sum(row["cost_usd"] for row in costs)
    assert run.cost > Decimal(str(run.results["check"].cost)) > 0


def test_a_stored_workflow_is_fixed_in_its_version_when_it_is_enqueued(stack: Stack) -> None:
    inner = Workflow(name="greeting", agents=[agent("greet", echo("hello"))])
    process().loop.run(process().client.workflows.register(inner))
    outer = Workflow(
        name="outer", agents=[Agent(name="sub", kind="workflow", config={"workflow": "greeting"})]
    )

    run = enqueue(outer)

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.outputs["sub"] == {"greet": "hello"}
    stored = run.to_workflow().agents[0].config["workflow"]
    assert stored["agents"][0]["prompt_template"] == echo("hello")
    with pytest.raises(WorkflowError, match="no workflow is stored as 'nowhere'"):
        enqueue(
            Workflow(
                name="x",
                agents=[Agent(name="sub", kind="workflow", config={"workflow": "nowhere"})],
            )
        )


def test_what_is_nested_too_deep_or_in_itself_is_refused_before_anything_is_stored(
    stack: Stack,
) -> None:
    deep = Workflow(name="leaf", agents=[agent("a")])
    for level in range(9):
        sub = Agent(name="sub", kind="workflow", config={"workflow": deep})
        deep = Workflow(name=f"level {level}", agents=[sub])
    itself = replace(INNER, agents=[Agent(name="x", kind="workflow", config={"workflow": INNER})])

    with pytest.raises(WorkflowError, match=r"nested 9 deep .* engine\.max_depth is 8"):
        enqueue(deep)
    with pytest.raises(WorkflowError, match="invoice check > invoice check"):
        enqueue(itself)
    assert stack.sql("SELECT 1 FROM workflows WHERE name = 'level 8'") == []


def test_sub_workflows_for_each_element_end_although_one_run_may_run_at_once(
    stack: Stack,
) -> None:
    workflow = Workflow(
        name="payments",
        agents=[
            Agent(name="check", kind="workflow", config={"workflow": INNER}, for_each="documents")
        ],
        max_parallel_agents=3,
    )
    sub = Workflow(
        name="deep", agents=[Agent(name="all", kind="workflow", config={"workflow": workflow})]
    )

    run = enqueue(sub, {"documents": ["a", "b", "c", "d"], "document": "x"})

    assert run.wait(timeout=WAIT_S) == "completed"
    judged = [one["judge"] for one in run.outputs["all"]["check"]]
    assert judged == ["read x is fine"] * 4
    assert run.cost == sum(
        row["cost_usd"]
        for row in stack.sql(
            "SELECT cost_usd FROM cost_entries WHERE budget_ids @> ARRAY[%s::uuid]", run.id
        )
    )


def test_cancelling_the_outer_run_closes_the_calls_of_the_inner_one(stack: Stack) -> None:
    slow = Workflow(name="slow", agents=[agent("wait", "[[sim:latency=600]]")])
    workflow = Workflow(
        name="cancelled", agents=[Agent(name="sub", kind="workflow", config={"workflow": slow})]
    )
    run = enqueue(workflow)
    wait_until(lambda: stack.simulator.summary()["in_flight"], timeout_s=scaled(20))

    assert run.cancel()

    assert run.wait(timeout=scaled(15)) == "cancelled"
    assert run.results["sub"].status == "cancelled"
    inner = run.results["sub"].metadata["run_id"]
    (row,) = stack.sql("SELECT status FROM runs WHERE id = %s", inner)
    assert row["status"] == "cancelled"


def test_status_counts_items_and_names_inner_runs(stack: Stack) -> None:
    workflow = Workflow(
        name="shown",
        agents=[
            agent("screen", "{item}", for_each="documents"),
            Agent(name="check", kind="workflow", config={"workflow": INNER}),
        ],
    )
    run = enqueue(workflow, {"documents": [1, 2, 3], "document": "d"})
    run.wait(timeout=WAIT_S)
    inner = run.results["check"].metadata["run_id"]

    shown = stack.command("status", run.id)
    told = stack.command("status", inner, "--json")

    assert "screen 3/3" in shown.stdout
    assert "screen[0]" not in shown.stdout
    assert f"check is run {inner}" in shown.stdout
    assert json.loads(told.stdout)["part_of"] == run.id


MAILS = [
    {"text": "my money back", "usd": 30},
    {"text": "where is it", "usd": 0},
    {"text": "a refund of a pen", "usd": 5},
]


def test_a_condition_on_the_element_skips_it_without_a_call(stack: Stack) -> None:
    workflow = Workflow(
        name="refunds",
        agents=[
            agent("refund", "refund {item.text}", for_each="mails", condition="item.usd >= 20"),
            agent("report", "report", "refund"),
        ],
    )

    run = enqueue(workflow, {"mails": MAILS})

    assert run.wait(timeout=WAIT_S) == "completed"
    results = run.results
    assert [results[f"refund[{n}]"].status.value for n in range(3)] == [
        "completed",
        "skipped",
        "skipped",
    ]
    assert [output is None for output in run.outputs["refund"]] == [False, True, True]
    assert results["report"].status == "completed"
    assert len(stack.simulator.ledger()) == 2
    (ended,) = [event for event in run.events() if event.data.get("skipped")]
    assert (ended.data["agent"], ended.data["skipped"]) == ("refund", 2)
    assert not run.retry_failed()


def test_lists_are_walked_together_by_name_and_by_index(stack: Stack) -> None:
    kind = echo('{{"kind": "k{index}"}}')
    workflow = Workflow(
        name="together",
        agents=[
            agent("triage", kind, for_each="mails"),
            agent(
                "reply",
                echo("{mail.text} is {triage.kind}"),
                "triage",
                for_each={"mail": "input.mails", "triage": "triage"},
                condition="triage.kind != 'k1' && mail.usd >= 0",
            ),
            agent("other", echo("{item.text} is {triage[index].kind}"), "triage", for_each="mails"),
        ],
    )

    run = enqueue(workflow, {"mails": MAILS})

    assert run.wait(timeout=WAIT_S) == "completed"
    expected = [f"{mail['text']} is k{n}" for n, mail in enumerate(MAILS)]
    assert run.outputs["other"] == expected
    assert run.outputs["reply"] == [expected[0], None, expected[2]]


def test_a_group_of_agents_runs_for_each_element(stack: Stack) -> None:
    workflow = Workflow(
        name="mails",
        agents=[
            Agent(
                name="handled",
                for_each="input.mails",
                condition="item.usd > 0",
                agents=[
                    agent("classify", echo("kind of {item.text}")),
                    agent("draft", echo("{classify}: {tone}"), "classify"),
                    agent("refund", "refund", "classify", condition="item.usd >= 20"),
                ],
            ),
            agent("report", echo("first {handled[0].draft}"), "handled"),
        ],
    )

    run = enqueue(workflow, {"mails": MAILS, "tone": "kind"})

    assert run.wait(timeout=WAIT_S) == "completed"
    handled = run.outputs["handled"]
    assert handled[0]["draft"] == "kind of my money back: kind"
    assert handled[1] is None
    assert [handled[n]["refund"] is None for n in (0, 2)] == [False, True]
    assert run.outputs["report"] == "first kind of my money back: kind"


def test_an_inner_run_whose_input_does_not_fit_its_schema_makes_no_call(stack: Stack) -> None:
    inner = Workflow(
        name="inner",
        agents=[agent("note", "Note {item.total}.")],
        input_schema={"properties": {"item": {"properties": {"total": {"type": "number"}}}}},
    )
    rows = '{"rows": [{"total": 1}, {"total": "much"}]}'
    outer = Workflow(
        name="outer",
        agents=[
            agent("list", echo(rows.replace("{", "{{").replace("}", "}}"))),
            Agent(
                name="notes",
                kind="workflow",
                config={"workflow": inner},
                dependencies=["list"],
                for_each="list.rows",
            ),
        ],
    )

    run = enqueue(outer, {})

    assert run.wait(timeout=WAIT_S) == "partially_completed"
    assert len(stack.simulator.ledger()) == 2
    error = run.results["notes[1]"].error
    assert error is not None
    assert 'input.item.total: "much" is not of type "number"' in error

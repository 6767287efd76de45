"""One workflow with every feature of agents, on workers that serve all queues."""

from collections import Counter
from typing import Any

from pydantic import BaseModel

from app import Agent, Workflow, enqueue
from app.examples.tools import check_total
from tests.support.pace import scaled
from tests.support.stack import Stack

ITEMS = 500
OPENAI = {"model": "gpt-4o-mini", "max_tokens": 200}
ANTHROPIC = {"model": "claude-haiku-4-5", "max_tokens": 200}


class Verdict(BaseModel):
    """The judge's answer."""

    risky: bool
    reason: str


def agent(name: str, prompt: str, *dependencies: str, **fields: Any) -> Agent:
    return Agent(
        name=name,
        prompt_template=prompt,
        dependencies=dependencies,
        **{"llm_config": OPENAI} | fields,
    )


def review() -> Workflow:
    """The sub-workflow."""
    return Workflow(
        name="review",
        agents=[
            agent("first", "Read {verdict}."),
            agent("second", "Read {first}.", "first", llm_config=ANTHROPIC),
        ],
    )


def everything() -> Workflow:
    reply = '[[sim:reply={{"risky": true, "reason": "late"}}]]'
    return Workflow(
        name="everything",
        agents=[
            agent("audit", "Check the total. [[sim:tool_turns=2]]", tools=[check_total]),
            agent(
                "judge",
                f"Judge {{audit}}. {reply}",
                "audit",
                output_schema=Verdict,
                output_mapping={"$": "verdict"},
            ),
            agent("praise", "Well done.", "judge", condition="!judge.risky"),
            agent(
                "screen",
                "{index}: {item.text}",
                "judge",
                condition="judge.risky",
                for_each="documents",
            ),
            Agent(
                name="second_look",
                kind="workflow",
                config={"workflow": review()},
                dependencies=["judge"],
                input_mapping={"verdict": "verdict.reason"},
            ),
            agent(
                "report",
                "Report on {screen} and {second_look}.",
                *("screen", "second_look"),
                fallbacks=[ANTHROPIC],
            ),
        ],
        max_parallel_agents=100,
    )


def test_everything_in_one_run_and_the_ledger_is_the_providers(stack: Stack) -> None:
    stack.simulator.configure(
        faults=[
            {"kind": "status", "status": 500, "provider": "openai", "prompt_contains": "Report on"}
        ]
    )
    documents = [{"text": f"document {number}"} for number in range(ITEMS)]

    run = enqueue(everything(), {"documents": documents})
    run.wait(timeout=scaled(120))

    states = {name: result.status for name, result in run.results.items() if "[" not in name}
    assert states == dict.fromkeys(states, "completed") | {"praise": "skipped"}
    assert len(run.outputs["screen"]) == ITEMS
    assert run.outputs["judge"] == {"risky": True, "reason": "late"}
    assert run.outputs["second_look"].keys() == {"first", "second"}
    assert run.context["verdict"]["risky"] is True
    served = Counter((record["model"], record["status"]) for record in stack.simulator.ledger())
    # 3 turns of the audit, the judge, the items, the first reviewer, and the report that fails.
    assert served["gpt-4o-mini", 200] == 3 + 1 + ITEMS + 1
    assert served["gpt-4o-mini", 500] == 1
    assert served["claude-haiku-4-5", 200] == 2
    tools = [event.type for event in run.events() if event.type.startswith("tool_")]
    assert tools.count("tool_finished") >= 2
    # The fixture compares the cost of each call with the simulator's ledger, line by line.

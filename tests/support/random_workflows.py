"""Random workflows with lists, sub-workflows and lists of sub-workflows, in which much fails."""

import random
from typing import Any

from app import Agent, Workflow

#: Fails at once, is retried once, or succeeds; the simulator obeys the marker in the prompt.
PROMPTS = ("go", "go", "go", "[[sim:status=400]]", "[[sim:status=500,times=1]]")
INPUT = {
    "things": ["one", "[[sim:status=400]]", "three", "four"],
    "cases": ["fine", "[[sim:status=400]]", "also fine"],
    "none": [],
}
#: Sub-workflows inside sub-workflows have no further sub-workflows.
DEEPEST = 2


def draw_workflow(
    generator: random.Random, name: str = "outer", depth: int = 0, *, of_list: bool = False
) -> Workflow:
    """Draw a workflow of two to four agents.

    Args:
        generator: Draws the workflow.
        name: Name of the workflow.
        depth: Number of workflows around this workflow.
        of_list: Whether the workflow runs for the elements of a list.
    """
    agents: list[Agent] = []
    for number in range(generator.randint(2, 4 if depth < DEEPEST else 2)):
        needs = [each.name for each in agents if generator.random() < 0.3]
        drawn = _draw_agent(generator, f"{'abc'[depth]}{number}", needs, name, depth, of_list)
        agents.append(drawn)
    return Workflow(name=name, agents=agents, max_parallel_agents=20)


def _draw_agent(
    generator: random.Random,
    name: str,
    needs: list[str],
    workflow: str,
    depth: int,
    of_list: bool,
) -> Agent:
    kinds = ["plain", "plain", "list", "skipped", "poor"]
    kinds += ["sub", "subs", "subs"] if depth < DEEPEST else []
    kind = generator.choice(kinds)
    fields: dict[str, Any] = {"name": name, "dependencies": needs, "priority": 5}
    fields |= {"accept_missing_inputs": generator.random() < 0.5}
    if kind in ("sub", "subs"):
        inner = draw_workflow(
            generator, f"{workflow} {name}", depth + 1, of_list=of_list or kind == "subs"
        )
        fields |= {"kind": "workflow", "config": {"workflow": inner}}
        # The input of an inner run of a list has the element in place of the list.
        lists = ("cases", "none") if depth == 0 else ("things",)
        return Agent(**fields, for_each=generator.choice(lists) if kind == "subs" else None)
    prompts = (*PROMPTS, "{item}", "{item}") if of_list else PROMPTS
    fields |= {
        "llm_config": {"model": "gpt-4o-mini", "max_tokens": 20},
        "prompt_template": generator.choice(prompts),
        "max_retries": 1,
        "on_cut": "accept",
    }
    if kind == "list":
        return Agent(**fields | {"prompt_template": "{item}"}, for_each="things")
    if kind == "skipped":
        return Agent(**fields, condition="1 > 2")
    if kind == "poor":
        return Agent(**fields, cost_limit=0.0000001)
    return Agent(**fields)

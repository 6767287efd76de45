"""Random workflows for the laws of plans; the simulator's answers have many lengths and forms."""

import random
from collections.abc import Mapping
from typing import Any

from app.domain.agent import Agent
from app.domain.workflow import Workflow

MODELS = ("gpt-4o-mini", "claude-haiku-4-5", "gpt-4.1")
SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"type": "string"}, "reasons": {"type": "array", "items": {}}},
}
#: Answers in which JSON escapes most characters.
QUOTED = '"' * 40 + "\\" * 40 + "\t\n" * 40


def random_workflow(rng: random.Random, name: str, depth: int = 0) -> Workflow:
    """Return a workflow of up to five agents, with lists, sub-workflows and schemas."""
    agents: list[Agent] = []
    for number in range(rng.randint(1, 3 if depth else 5)):
        before = [agent for agent in agents if rng.random() < 0.6]
        agents.append(_agent(rng, f"a{number}", before, depth, name))
    return Workflow(name=name, agents=agents, max_parallel_agents=50)


def long_list() -> Workflow:
    """Return a workflow whose expensive agent reads forty long answers."""
    mini = {"model": "gpt-4o-mini", "max_tokens": 200}
    agents = [
        Agent(
            name="each",
            prompt_template="{item.text} [[sim:output_tokens=900]]",
            llm_config=mini,
            for_each="input.rows",
            on_cut="accept",
        ),
        Agent(
            name="all",
            prompt_template="{each}",
            llm_config={"model": "gpt-4.1", "max_tokens": 20},
            dependencies=["each"],
            on_cut="accept",
        ),
    ]
    return Workflow(name="long list", agents=agents)


def random_input(rng: random.Random) -> dict[str, Any]:
    """Return an input that fits every workflow of ``random_workflow``."""
    # A bound that forgets all elements but one is still above the cost of a short list.
    rows = [{"text": "word " * rng.randint(0, 30)} for _ in range(rng.choice([0, 2, 30]))]
    return {"topic": "tides " * rng.randint(1, 50), "rows": rows, "few": rows[:2]}


def _agent(rng: random.Random, name: str, before: list[Agent], depth: int, outer: str) -> Agent:
    dependencies = [agent.name for agent in before]
    kind = rng.random()
    for_each = rng.choice(["input.rows", "input.rows", None, None]) if not depth else None
    if not depth and kind < 0.25:
        inner = random_workflow(rng, f"{outer} {name}", depth + 1)
        return Agent(
            name=f"w{name}",
            kind="workflow",
            config={"workflow": inner},
            dependencies=dependencies,
            for_each="input.few" if for_each else None,
        )
    read = " ".join(f"{{{each}}}" for each in dependencies for _ in range(rng.randint(1, 2)))
    schema = SCHEMA if rng.random() < 0.2 else None
    return Agent(
        name=name,
        prompt_template=f"{name} {_marker(rng, schema)} {{topic}} {read} "
        + ("{item.text} {index}" if for_each else ""),
        llm_config=_config(rng),
        dependencies=dependencies,
        for_each=for_each,
        output_schema=schema,
        on_cut=None if schema else "accept",
    )


def _config(rng: random.Random) -> Mapping[str, Any]:
    return {"model": rng.choice(MODELS), "max_tokens": rng.choice([60, 200, 700])}


def _marker(rng: random.Random, schema: object) -> str:
    if schema is not None:
        return ""
    chosen = [
        "",
        "[[sim:output_tokens=5]]",
        "[[sim:output_tokens=900]]",
        "[[sim:output_tokens=900]]",
        f"[[sim:reply={QUOTED}]]",
        f"[[sim:reasoning_tokens={rng.randint(1, 300)}]]",
    ]
    return rng.choice(chosen)

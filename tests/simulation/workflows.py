"""The workflows that a simulation's users enqueue, drawn by a seed."""

import random
from collections.abc import Sequence
from typing import Any

from app import Agent, RetryPolicy, RetryStrategy, Workflow

MODELS = {"openai": "sim-small", "anthropic": "sim-large"}
TOOLS = (["look_up"], ["send"], ["look_up", "send"])
FALLBACKS = [{"provider": "anthropic", "model": "sim-other"}]
#: Prompts of agents with a cache; several agents of the same run or of other runs share them.
SHARED_PROMPTS = ("share0: what holds for all", "share1: what else holds for all")
CACHE_TTL_S = 30
SHARED_SHARE = 0.25
#: The share of runs in which an agent has a list, and the share of runs with a sub-workflow.
LIST_SHARE, SUB_WORKFLOW_SHARE = 0.25, 0.25


def draw_workflow(generator: random.Random, number: int) -> Workflow:
    """Draw two to four levels of agents on two providers, some with a list or a sub-workflow.

    Args:
        generator: Draws the workflow.
        number: Number of the run; all names begin with this number.
    """
    agents: list[Agent] = []
    above: Sequence[str] = ()
    for level in range(generator.choice((2, 3, 4))):
        names = []
        for place in range(generator.randint(1, 5)):
            needs = generator.sample(above, k=min(len(above), generator.choice((1, 1, 2))))
            names.append(f"r{number}l{level}p{place}")
            agents.append(_draw_agent(generator, names[-1], needs))
        if level < 2 and generator.random() < LIST_SHARE / 2:
            names.append(f"r{number}l{level}list")
            needs = list(above[:1])
            agents.append(_draw_agent(generator, names[-1], needs, for_each="input.cases"))
        if level < 2 and generator.random() < SUB_WORKFLOW_SHARE / 2:
            names.append(f"r{number}l{level}sub")
            agents.append(_draw_sub_workflow(generator, names[-1], above[:1]))
        above = names
    return Workflow(
        name=f"flow{number}",
        agents=agents,
        max_parallel_agents=generator.choice((1, 2, 3, 10)),
        cost_budget=generator.choice((0.02, 5.0, 5.0, 5.0)),
        allow_partial_completion=generator.random() < 0.8,
        timeout=generator.choice((20.0, 3600.0, 3600.0, 3600.0)),
        priority=generator.choice((3, 5)),
    )


def draw_repairable(generator: random.Random, number: int) -> Workflow:
    """Draw a workflow of lists of which some items fail, until the faults are over.

    A second list walks over the first one, a third one is a list of sub-workflows, and one agent
    reads them all. So a retry finds something to repair, and something that follows.
    """
    first, second, third = (f"repaired{number}{name}" for name in ("list", "follows", "subs"))
    inner = Workflow(
        name=f"flow of {third}",
        agents=[
            _plain(generator, f"{third}a", "of {item} {case}"),
            _plain(generator, f"{third}b", f"of {{item}} {{{third}a}}", f"{third}a"),
        ],
    )
    return Workflow(
        name=f"flow{number}",
        agents=[
            _plain(generator, first, "[{index}] of {item}", for_each="cases"),
            _plain(generator, second, "[{index}] of {item}", first, for_each=first),
            Agent(
                name=third,
                kind="workflow",
                config={"workflow": inner},
                dependencies=[first],
                for_each=first,
            ),
            _plain(generator, f"end{number}", f"{{{second}}} {{{third}}}", second, third),
        ],
        max_parallel_agents=generator.choice((1, 3, 10)),
    )


def _plain(generator: random.Random, name: str, reads: str, *needs: str, **fields: Any) -> Agent:
    provider = generator.choice(sorted(MODELS))
    return Agent(
        name=name,
        prompt_template=f"{name}{reads}: case",
        llm_config={"provider": provider, "model": MODELS[provider], "max_tokens": 100},
        dependencies=needs,
        **fields,
    )


def _draw_sub_workflow(generator: random.Random, name: str, needs: Sequence[str]) -> Agent:
    first, second = f"{name}a", f"{name}b"
    inner = Workflow(
        name=f"flow of {name}",
        agents=[
            _draw_agent(generator, first, ()),
            _draw_agent(generator, second, [first]),
        ],
        max_parallel_agents=1,
        cost_budget=generator.choice((0.02, 1.0, 1.0)),
        timeout=generator.choice((20.0, 3600.0, 3600.0)),
    )
    return Agent(
        name=name,
        kind="workflow",
        config={"workflow": inner},
        dependencies=needs,
        for_each=generator.choice((None, None, "input.cases")),
        cost_limit=generator.choice((1.0, 1.0, 0.02)),
    )


def _draw_agent(generator: random.Random, name: str, needs: Sequence[str], **fields: Any) -> Agent:
    provider = generator.choice(sorted(MODELS))
    place = "[{index}]" if fields else ""
    read = " ".join(f"{{{need}}}" for need in needs)
    shared = generator.random() < SHARED_SHARE
    prompt = generator.choice(SHARED_PROMPTS) if shared else f"{name}{place}: case {{case}} {read}"
    return Agent(
        name=name,
        prompt_template=prompt,
        llm_config={"provider": provider, "model": MODELS[provider], "max_tokens": 100},
        dependencies=needs,
        cache={"ttl": CACHE_TTL_S} if shared else False,
        tools=generator.choice(TOOLS) if not shared and generator.random() < 0.5 else [],
        fallbacks=FALLBACKS if generator.random() < 0.3 else [],
        priority=generator.choice((1, 5, 5, 5, 8)),
        timeout=generator.choice((8.0, 30.0)),
        accept_missing_inputs=generator.random() < 0.1,
        cost_limit=generator.choice((1.0, 1.0, 1.0, 1.0, 0.02)),
        retry_policy=RetryPolicy(
            strategy=RetryStrategy.CONSTANT_DELAY,
            base_delay=generator.choice((0.0, 1.0, 12.0)),
            max_retries=generator.choice((1, 4)),
        ),
        **fields,
    )

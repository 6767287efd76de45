"""Prompts of workflows, and the values that fill them."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.errors import AgentError, WorkflowError
from tests.support.cheapness import assert_cheap
from tests.support.jobs import job_of
from workers.views import beside, rendered

counts = st.sampled_from([1, 10, 1000, 9000, 60_000])
pieces = st.sampled_from(
    [
        *("{a}", "{a.b}", "{a[0]}", "{{", "}}", "{", "}", "{a.", "{a.b", "{a!x}", "{é-_", "x"),
        *("{a[1]", '{"k": {"k": 1}}', "<think>", "</think>", " ", "\n", "[", "```json\n"),
        "{b.c[0].d}",
    ]
)
repeated = st.builds(lambda piece, count: piece * count, pieces, counts)
templates = st.lists(repeated, min_size=1, max_size=4).map("".join)
texts = st.one_of(
    st.builds(lambda start, text: start + text, st.sampled_from(["", "x</think>", "{"]), repeated),
    st.builds(lambda size: "[" + "10000000000000000000," * size + "1]", st.integers(0, 90_000)),
    st.builds(lambda size: "[" * size, counts),
    st.builds(lambda size: '{"b": [' + "1e5," * size + "1]}", st.integers(0, 400_000)),
)
values = st.one_of(
    texts,
    st.builds(lambda size: [1 << 70] * size, st.integers(0, 100_000)),
    st.builds(lambda size: {f"k{number}": number for number in range(size)}, st.integers(0, 9999)),
    st.none(),
)


@given(templates, values, values)
def test_a_prompt_is_cheap(template: str, one: Any, other: Any) -> None:
    async def attack() -> None:
        with suppress(WorkflowError, AgentError):
            agent = Agent(name="one", prompt_template=template, llm_config={"model": "gpt-4o"})
            Workflow(name="w", agents=[agent])  # checks the prompt
            job = job_of(agent)
            job.run = replace(job.run, input={"a": one, "b": other})
            await beside(job, lambda: rendered(job))

    assert_cheap(attack)

"""Strategies for workflows in which every field of an agent and of a workflow takes many values."""

from collections.abc import Mapping
from dataclasses import fields
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from unicodedata import normalize

from hypothesis import strategies as st
from pydantic import BaseModel

from app.domain.agent import Agent
from app.domain.agent_validation import FALLBACK_CLASSES
from app.domain.on_cut import OnCut
from app.domain.plain_text import find_name_problem
from app.domain.retry import RetryPolicy, RetryStrategy
from app.domain.workflow import Workflow
from app.tools.tool import tool
from tests.support.json_documents import json_values


class Module(StrEnum):
    HR = "HR"


class Size(IntEnum):
    THREE = 3


class Seconds(float):
    """A float of a library of its own, such as NumPy's."""


class Answer(BaseModel):
    size: Size
    tags: list[str] = []


class Input(BaseModel):
    topic: str
    documents: list[str] = []


@tool
def weigh(grams: int, module: Module = Module.HR) -> str:
    """Weigh a parcel."""
    return f"{grams} {module}"


def _floats(low: float, high: float) -> st.SearchStrategy[float]:
    plain = st.floats(low, high)
    return plain | st.integers(round(low + 0.5), int(high)) | plain.map(Seconds)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
#: Names, which have only characters that are seen.
_letters = st.characters(codec="utf-8", exclude_categories=["C", "M", "Z"]) | st.just(" ")
words = (
    st.text(_letters, min_size=1, max_size=30)
    .map(lambda text: normalize("NFC", text.strip()))
    .filter(lambda text: text and find_name_problem(text) is None)
)
_VALUE = {"about": "topic"}
_CONFIG = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o-mini", "claude-haiku-4-5"])},
    optional={
        "temperature": st.floats(0, 1) | st.just(-0.0),
        "max_tokens": st.integers(1, 4000) | st.just(Size.THREE.value),
        "system": texts,
    },
)
_POLICY = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 1000) | st.just(Size.THREE),
    strategy=st.sampled_from(RetryStrategy) | st.sampled_from(list(map(str, RetryStrategy))),
    base_delay=_floats(0, 100),
    max_delay=_floats(0, 1e6),
    exponential_base=_floats(1, 1000),
    jitter=st.booleans(),
)
_SCHEMAS = st.sampled_from(
    [
        Answer,
        {"type": "object", "properties": {"b": {"type": "number", "minimum": 1e23}, "a": {}}},
        {"enum": [1 << 80, -0.0, "é", None]},
    ]
)
_KINDS: dict[str, st.SearchStrategy[Mapping[str, Any]]] = {
    "function": st.builds(
        lambda arguments: {"function": "app.examples.functions:totals", "arguments": arguments},
        st.dictionaries(texts, json_values, max_size=2),
    ),
}
#: A strategy for each field that an agent of the kind ``llm`` may have, besides its name.
AGENT_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "prompt_template": words.map(lambda text: text.replace("{", "{{").replace("}", "}}")),
    "module": words | st.just(Module.HR),
    "description": texts,
    "llm_config": _CONFIG | _CONFIG.map(MappingProxyType),
    "attachments": st.lists(
        st.sampled_from(["a.pdf", "{topic}", {"path": "b.png", "detail": "low"}]), max_size=2
    ),
    "tools": st.lists(st.sampled_from([weigh, "weigh_all"]), max_size=2, unique_by=id),
    "max_retries": st.integers(0, 1000) | st.just(Size.THREE),
    "timeout": _floats(0.1, 1e6),
    "cost_limit": _floats(0, 1e6),
    "priority": st.integers(1, 10) | st.just(Size.THREE),
    "retry_policy": st.none() | _POLICY,
    "accept_missing_inputs": st.booleans(),
    "max_turns": st.integers(1, 1000) | st.just(Size.THREE),
    "fallbacks": st.lists(_CONFIG, max_size=2).map(tuple),
    "fallback_on": st.lists(st.sampled_from(FALLBACK_CLASSES), max_size=2).map(tuple),
    "cache": st.booleans() | st.sampled_from([{}, {"ttl": None}, {"ttl": 5}, {"ttl": Size.THREE}]),
    "input_mapping": st.sampled_from([{}, _VALUE, MappingProxyType(_VALUE)]),
    "condition": st.none() | words.map(lambda text: f"input.topic != {'x' * len(text)!r}"),
    "output_schema": st.none() | _SCHEMAS,
    "on_cut": st.none() | st.sampled_from([OnCut.ACCEPT, OnCut.FAIL, "accept", "fail"]),
    "for_each": st.sampled_from([None, "documents", {"one": "input.documents"}]),
}
#: Fields whose values depend on the other agents; ``workflows`` gives them values.
STRUCTURE = {
    "name",
    "kind",
    "config",
    "agents",
    "dependencies",
    "output_mapping",
    "status",
    "result",
}
WORKFLOW_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": words | st.just(Module.HR),
    "description": texts,
    "max_parallel_agents": st.integers(1, 1_000_000) | st.just(Size.THREE),
    "cost_budget": _floats(0, 1e6),
    "timeout": _floats(0.1, 1e6),
    "allow_partial_completion": st.booleans(),
    "priority": st.integers(1, 10) | st.just(Size.THREE),
    "labels": st.dictionaries(
        st.from_regex(r"[a-z0-9_.-]{1,63}", fullmatch=True), words, max_size=16
    ),
    "input_schema": st.none()
    | st.sampled_from([Input, {"type": "object", "properties": {"topic": {}, "documents": {}}}]),
}
WORKFLOW_STRUCTURE = {"agents", "status", "total_cost", "data_flow", "_by_name"}


def fields_without_values() -> set[str]:
    """Return the fields of an agent and of a workflow for which this module has no values."""
    agent = {each.name for each in fields(Agent)} - {*AGENT_FIELDS, *STRUCTURE}
    workflow = {each.name for each in fields(Workflow)} - {*WORKFLOW_FIELDS, *WORKFLOW_STRUCTURE}
    return agent | workflow


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """A workflow of up to three agents and a group, each of which may use any field."""
    needed = {key: AGENT_FIELDS[key] for key in ("prompt_template", "llm_config")}
    optional = {key: each for key, each in AGENT_FIELDS.items() if key not in needed}
    agents = [Agent(name="first", **draw(st.fixed_dictionaries(needed, optional=optional)))]
    if draw(st.booleans()):
        chosen = draw(st.fixed_dictionaries(needed, optional=optional))
        chosen["output_mapping"] = draw(st.sampled_from([{}, {"$": "whole"}]))
        agents.append(Agent(name="second", dependencies=("first",), **chosen))
    if draw(st.booleans()):
        kind = draw(st.sampled_from(sorted(_KINDS)))
        agents.append(Agent(name="third", kind=kind, config=draw(_KINDS[kind])))
    if draw(st.booleans()):
        inside = Agent(name="inside", prompt_template="go", llm_config={"model": "gpt-4o-mini"})
        for_each = draw(AGENT_FIELDS["for_each"])
        agents.append(Agent(name="group", agents=[inside], for_each=for_each))
    rules = {key: each for key, each in WORKFLOW_FIELDS.items() if key != "name"}
    given = draw(st.fixed_dictionaries({"name": WORKFLOW_FIELDS["name"]}, optional=rules))
    return Workflow(agents=agents, **given)

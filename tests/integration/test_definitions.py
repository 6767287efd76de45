"""A workflow is accepted everywhere or nowhere, however it is written down."""

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.client.acceptance import Acceptance
from app.client.client import Client
from app.configuration.settings import load_settings
from app.domain.agent import Agent
from app.domain.json_text import read_json, write_json
from app.domain.retry import RetryPolicy
from app.domain.workflow import Workflow
from app.errors import AgentChordError
from app.sandbox.processes import Sandbox
from app.storage import runs
from app.workflow_files.loader import load
from tests.support.definitions import fields_without_values, workflows
from tests.support.json_documents import json_values

CALL: dict[str, Any] = {"prompt_template": "go", "llm_config": {"model": "gpt-4o-mini"}}
QUICK = settings(
    max_examples=40,
    # A shrunk example would save little reading, and each of its steps asks Postgres.
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Quoting(yaml.SafeDumper):
    """Quotes every text: PyYAML writes YAML 1.1, in which 1E-10 is a text and not a number."""


Quoting.add_representer(
    str, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"')
)


def around(inner: Any) -> Workflow:
    agent = Agent(name="inner", kind="workflow", config={"workflow": inner})
    return Workflow(name="outer of all", agents=[agent])


def inside(workflow: Workflow) -> dict[str, Any]:
    found: dict[str, Any] = workflow.definition()["agents"][0]["config"]["workflow"]
    return found


def as_people_write(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with its schemas as mappings, in the way of a workflow file."""
    written = copy.deepcopy(definition)
    for agent in written["agents"]:
        if isinstance(agent.get("output_schema"), str):
            agent["output_schema"] = read_json(agent["output_schema"])
    return written


def from_file(folder: Path, suffix: str, document: dict[str, Any]) -> Workflow:
    path = folder / f"workflow.{suffix}"
    if suffix == "json":
        path.write_bytes(write_json(document))
    else:
        path.write_text(yaml.dump(document, Dumper=Quoting, sort_keys=False), encoding="utf-8")
    return load(path).workflow


def ways(folder: Path) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """Every way to write down a definition -> the definition that arises."""
    return {
        "python": lambda given: _completed(Workflow.from_definition(given)).definition(),
        "nested in python": lambda given: inside(
            _completed(around(Workflow.from_definition(given)))
        ),
        "nested as a dict": lambda given: inside(_completed(around(given))),
        "yaml": lambda given: from_file(folder, "yaml", given).definition(),
        "json": lambda given: from_file(folder, "json", given).definition(),
        "nested in yaml": lambda given: inside(
            from_file(folder, "yaml", {"name": "outer of all", "agents": [_nested(given)]})
        ),
    }


def _nested(given: dict[str, Any]) -> dict[str, Any]:
    return {"name": "inner", "kind": "workflow", "config": {"workflow": given}}


@pytest.fixture(scope="module", autouse=True)
def ended_sandbox() -> Iterator[None]:
    yield
    _sandbox().close()


@cache
def _sandbox() -> Sandbox:
    """One for all tests of this module, as in a worker: it takes half a second to start."""
    return Sandbox()


@cache
def _acceptance() -> Acceptance:
    """With the settings of the first test; only URLs, which no definition has, differ later."""
    return Acceptance(load_settings(), _sandbox())


def _completed(workflow: Workflow) -> Workflow:
    return _acceptance().check(workflow)


def _said(make: Callable[[], Any]) -> str:
    """The name of an error that refuses the workflow; empty if the workflow is accepted."""
    try:
        make()
    except (AgentChordError, TypeError, LookupError, ValueError, AttributeError) as error:
        return type(error).__name__
    return ""


def test_every_field_of_an_agent_and_of_a_workflow_is_tried() -> None:
    assert not fields_without_values()


@pytest.mark.anyio
@QUICK
@given(workflows())
@example(Workflow(name="a", agents=[Agent(name="b", **CALL, retry_policy=RetryPolicy())]))
@example(Workflow(name="a", agents=[Agent(name="b", **CALL, fallback_on=())]))
@example(Workflow(name="a", agents=[Agent(name="b", **CALL, cache={})]))
async def test_a_workflow_that_is_accepted_is_accepted_and_kept_everywhere(
    client: Client, tmp_path_factory: pytest.TempPathFactory, workflow: Workflow
) -> None:
    folder = tmp_path_factory.mktemp("files")
    acceptance = _acceptance()
    routed = acceptance.check(workflow).definition()
    run_input = {"topic": "x", "documents": ["y"]}

    for written in (workflow.definition(), as_people_write(workflow.definition())):
        for name, way in ways(folder).items():
            found = way(written)
            assert found == routed or found == workflow.definition(), name
    for whole in (workflow, around(workflow)):
        acceptance.check_calls(acceptance.check(whole))
        run_id = await client.runs.enqueue(whole, run_input)
        stored = await client.transaction(partial(_stored, run_id=run_id))
        assert stored.definition() == acceptance.check(whole).definition()
        assert stored.content_hash() == acceptance.check(whole).content_hash()


@QUICK
@given(workflows(), st.data())
def test_a_workflow_with_one_wrong_value_is_refused_everywhere_or_nowhere(
    tmp_path_factory: pytest.TempPathFactory, workflow: Workflow, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("files")
    document = as_people_write(workflow.definition())
    part = data.draw(st.sampled_from([document, *document["agents"]]))
    field = data.draw(st.sampled_from(sorted(part)))
    part[field] = data.draw(json_values)

    said = {name: _said(partial(way, document)) for name, way in ways(folder).items()}

    assert len({bool(word) for word in said.values()}) == 1, said


@pytest.mark.parametrize("kind", ["llm", "function", "workflow", "http"])
@pytest.mark.parametrize("config", [{}, {"unknown": 1}, {"function": 1}, {"workflow": {}}])
def test_wrong_settings_of_a_kind_are_refused_everywhere_or_nowhere(
    tmp_path: Path, kind: str, config: dict[str, Any]
) -> None:
    document = {"name": "a", "agents": [{"name": "b", "kind": kind, "config": config}]}

    said = {name: _said(partial(way, document)) for name, way in ways(tmp_path).items()}

    assert len({bool(word) for word in said.values()}) == 1, said


@pytest.mark.parametrize("field", ["name", "description", "condition", "module", "tools"])
@pytest.mark.parametrize("value", ["\0", "\ud800"])
def test_text_that_postgres_cannot_store_is_refused_when_the_workflow_is_made(
    field: str, value: str
) -> None:
    given: dict[str, Any] = {"condition": f"input.a == '{value}'", "tools": [f"a{value}"]}

    with pytest.raises(ValueError, match=field):
        Workflow(name="a", agents=[Agent(**{"name": "b", **CALL, field: given.get(field, value)})])


async def _stored(connection: Any, run_id: Any) -> Workflow:
    statement = text("SELECT workflow_id FROM runs WHERE id = :id")
    workflow_id = await connection.scalar(statement, {"id": run_id})
    found = await runs.read_workflow(connection, workflow_id)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["a\0", "a\ud800"])
def test_a_name_of_a_sub_workflow_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"config\.workflow contains"):
        around(name)

"""The input of a run must fit the workflow's ``input_schema`` before anything is stored."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from app.client.acceptance import Acceptance
from app.configuration.settings import load_settings
from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.errors import SeveralMistakes, WorkflowError
from app.sandbox.processes import Sandbox

pytestmark = pytest.mark.anyio


class Mail(BaseModel):
    subject: str
    urgent: bool = False


class Mails(BaseModel):
    mails: list[Mail]


def workflow(prompt: str = "{item.subject}", **fields: Any) -> Workflow:
    fields = {"input_schema": Mails} | fields
    agent = Agent(
        name="classify",
        prompt_template=prompt,
        llm_config={"model": "gpt-4o-mini"},
        for_each="input.mails",
        condition=fields.pop("condition", None),
    )
    return Workflow(name="triage", agents=[agent], **fields)


@pytest.fixture
async def acceptance(anyio_backend: str) -> AsyncIterator[Acceptance]:
    sandbox = Sandbox()
    yield Acceptance(load_settings(), sandbox)
    sandbox.close()


async def test_an_input_that_fits_is_accepted(acceptance: Acceptance) -> None:
    run_input = {"mails": [{"subject": "a"}, {"subject": "b", "urgent": True}], "more": 1}

    await acceptance.check_input(workflow(), run_input)
    assert (await acceptance.check_run(workflow(), run_input)).name == "triage"


async def test_all_mistakes_of_an_input_are_named_with_their_places(
    acceptance: Acceptance,
) -> None:
    mails = [{"subject": 5}, {"subjekt": "b", "urgent": "yes"}]

    with pytest.raises(SeveralMistakes) as caught:
        await acceptance.check_input(workflow("{index}"), {"mails": mails})

    found = {mistake.field: str(mistake) for mistake in caught.value.mistakes}
    assert found == {
        "input.mails[0].subject": 'input.mails[0].subject: 5 is not of type "string"',
        "input.mails[1].urgent": 'input.mails[1].urgent: "yes" is not of type "boolean"',
        "input.mails[1]": 'input.mails[1]: "subject" is a required property; did you mean '
        "'subjekt'?",
    }


async def test_a_large_schema_is_applied_in_the_sandbox(acceptance: Acceptance) -> None:
    costly = {"type": "object", "properties": {"mails": {"enum": [[], *range(100_000 // 8)]}}}

    await acceptance.check_input(workflow(input_schema=costly), {"mails": []})
    with pytest.raises(WorkflowError, match=r"^input\.mails: "):
        await acceptance.check_input(workflow("{index}", input_schema=costly), {"mails": [1]})


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"input_schema": 5}, "input_schema", "input_schema is 5: give a JSON Schema"),
        ({"input_schema": {}}, "input_schema", "input_schema is {}"),
        ({"input_schema": {"type": "objekt"}}, "input_schema", "is not a JSON Schema at type"),
        ({"prompt": "{item.subjekt}"}, "agents[0].prompt_template", "did you mean 'subject'?"),
        ({"condition": "input.mailz != null"}, "agents[0].condition", "did you mean 'mails'?"),
        ({"condition": "input.mails[0].urgend"}, "agents[0].condition", "mean 'urgent'?"),
    ],
)
async def test_a_wrong_schema_or_a_path_that_it_does_not_have_is_refused_at_registration(
    acceptance: Acceptance, fields: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(WorkflowError) as caught:
        acceptance.check(workflow(**fields))

    assert caught.value.field == field
    assert problem in str(caught.value)


async def test_a_workflow_without_a_schema_keeps_its_version_and_the_schema_its_order() -> None:
    schema = {"properties": {"z": {}, "mails": {}}, "type": "object"}
    given = workflow(input_schema=schema)

    stored = Workflow.from_definition(given.definition())

    assert "input_schema" not in workflow(input_schema=None).definition()
    assert list(stored.input_schema["properties"]) == ["z", "mails"]
    assert stored.content_hash() == given.content_hash() != workflow().content_hash()

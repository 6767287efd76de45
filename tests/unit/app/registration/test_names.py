"""Every name that a new definition, limit or setting brings follows one rule."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from app.client.monitor import _check
from app.configuration.sections import ProviderLimits, ProviderSettings
from app.domain.agent import Agent
from app.domain.plain_text import find_name_problem
from app.domain.workflow import Workflow
from app.errors import AgentChordError, WorkflowError
from app.rate_limits.stored import check_model_name
from app.registration.workflows import check_workflow
from app.tools.tool import tool

CALL: dict[str, Any] = {"prompt_template": "go", "llm_config": {"model": "gpt-4o-mini"}}
NAMES = (
    *("a\u200bb", "a\u2060", "\ufeffacme", "acme\U000e0041", "a\ufe0f", "\u3164", "\u0301"),
    *("\u2800", "a\xa0b", " a", "e\u0301", "a\u200db", "a\x1b[2J", "\u202egpj", "👩‍💻"),
)


def check(name: str = "a", **agent: Any) -> None:
    check_workflow(Workflow(name=name, agents=[Agent(**{"name": "a", **CALL, **agent})]))


def len_of(text: str) -> int:
    """Return the length of a text."""
    return len(text)


CHECKS: dict[str, Callable[[str], object]] = {
    "a workflow": check,
    "a module": lambda name: check(module=name),
    "a model": lambda name: check(llm_config={"model": name, "provider": "openai"}),
    "a fallback": lambda name: check(fallbacks=[{"model": name, "provider": "openai"}]),
    "an agent": lambda name: Workflow(name="a", agents=[Agent(name=name, **CALL)]),
    "a tool": lambda name: tool(name=name)(len_of),
    "limits": check_model_name,
    "limits of the settings": lambda name: ProviderLimits.model_validate(
        {"models": {name: {"burst": 1}}}
    ),
    "models of a provider": lambda name: ProviderSettings.model_validate({"models": [name]}),
    "an event": lambda name: _check(name, {}),
}


@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_each_name_that_cannot_be_read_is_refused_in_one_line(what: str, name: str) -> None:
    with pytest.raises((AgentChordError, ValidationError)) as refused:
        CHECKS[what](name)

    if isinstance(refused.value, ValidationError):
        (problem,) = (each["msg"] for each in refused.value.errors())
        assert problem == f"Value error, {find_name_problem(name)}"
    else:
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("what", CHECKS)
def test_an_ordinary_name_is_accepted(what: str) -> None:
    CHECKS[what]("acme-2")


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(WorkflowError) as refused:
        check(fallbacks=[{"model": "a\u200bb", "provider": "openai"}])

    assert refused.value.field == "agents[0].fallbacks[0].model"
    assert r"contains the character \u200b" in str(refused.value)

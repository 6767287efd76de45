import datetime as dt
import time
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.domain.agent import Agent
from app.domain.input_validation import validate_input
from app.domain.status import AgentStatus
from app.domain.validation import validate_workflow
from app.domain.workflow import Workflow
from app.errors import WorkflowError


def agent(name: str = "extract", prompt: str = "Work.", **fields: Any) -> Agent:
    fields = {"llm_config": {"model": "gpt-4o-mini"}} | fields
    return Agent(name=name, prompt_template=prompt, **fields)


def workflow(*agents: Agent, **fields: Any) -> Workflow:
    return Workflow(**({"name": "invoices", "agents": agents} | fields))


def refusal(agents: Sequence[Any], **fields: Any) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        workflow(*agents, **fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"priority": 0}, "priority is 0: give a whole number from 1 to 10"),
        ({"priority": 11}, "priority is 11"),
        ({"priority": 5.5}, "priority is 5.5 (float)"),
        ({"priority": "5"}, "priority is '5' (str)"),
        ({"priority": True}, "priority is True (bool)"),
        ({"priority": None}, "priority is None"),
        ({"max_retries": -1}, "max_retries is -1: give a whole number from 0"),
        ({"timeout": 0}, "timeout is 0: give a number above 0"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"timeout": "300"}, "timeout is '300' (str)"),
        ({"cost_limit": -0.01}, "cost_limit is -0.01: give a number from 0"),
        ({"cost_limit": float("nan")}, "cost_limit is nan"),
        ({"cost_limit": Decimal("0.5")}, "cost_limit is Decimal('0.5') (Decimal)"),
        ({"max_turns": 0}, "max_turns is 0: give a whole number from 1"),
        ({"on_cut": "continu"}, "did you mean 'continue'?"),
        ({"on_cut": True}, "on_cut is True: give one of"),
        (
            {"on_cut": "continue", "output_schema": {"type": "object"}},
            "on_cut is 'continue', but under an output_schema",
        ),
        ({"accept_missing_inputs": "no"}, "accept_missing_inputs is 'no': give True or False"),
        ({"retry_policy": {"max_retries": 1}}, "retry_policy is {'max_retries': 1}: give a Retry"),
        ({"module": ""}, "module is empty"),
        ({"description": None}, "description is None (NoneType): give a string"),
        ({"description": "a\0b"}, "description contains a NUL character"),
        ({"dependencies": "check"}, "dependencies is 'check': give a list, such as ['check']"),
        ({"dependencies": [1]}, "dependencies[0] is 1: give the name of an agent"),
        ({"tools": "search"}, "tools is 'search': give a list, such as ['search']"),
        ({"tools": [print]}, "decorate the function with @tool"),
        ({"tools": [""]}, "tools[0] is ''"),
        ({"tools": [{"name": {1}}]}, "tools[0].name is {1} (set)"),
    ],
)
def test_a_field_out_of_bounds_is_refused_with_the_agent_and_the_remedy(
    fields: dict[str, Any], message: str
) -> None:
    error = refusal([agent(), agent("report", **fields)])

    assert str(error).startswith("agent 'report': ")
    assert message in str(error)
    assert str(error.field).startswith(f"agents[1].{next(iter(fields))}")


@pytest.mark.parametrize(
    ("llm_config", "message"),
    [
        ({}, 'llm_config names no model: add one, such as "model"'),
        ({"model": None}, "names no model"),
        ({"model": 4}, "llm_config.model is 4: give a string"),
        ({"model": "gpt-4o", "max_tokens": 0}, "llm_config.max_tokens is 0"),
        ({"model": "gpt-4o", "max_tokens": 10.5}, "llm_config.max_tokens is 10.5 (float)"),
        ({"model": "gpt-4o", "temperature": 2.1}, "llm_config.temperature is 2.1: give a number"),
        ({"model": "gpt-4o", "temperature": "hot"}, "llm_config.temperature is 'hot'"),
        ({"model": "gpt-4o", "stop": {"."}}, "llm_config.stop is {'.'} (set), which is not a JSON"),
        ({"model": "gpt-4o", "logit_bias": {5: 1}}, "llm_config.logit_bias has the key 5"),
        ("gpt-4o", "llm_config is 'gpt-4o': give a dict"),
    ],
)
def test_a_model_configuration_that_cannot_work_is_refused(llm_config: Any, message: str) -> None:
    error = refusal([agent("report", llm_config=llm_config)])

    assert str(error).startswith("agent 'report': ")
    assert message in str(error)


@pytest.mark.parametrize(
    "llm_config",
    [
        {"model": "gpt-4o", "temperature": 0, "max_tokens": 1, "stop": ["."]},
        {"model": "claude-sonnet-4-5", "temperature": None, "max_tokens": None},
        {"model": "anything", "provider": "openai", "system": "Be brief."},
    ],
)
def test_a_model_configuration_that_works_is_accepted(llm_config: dict[str, Any]) -> None:
    assert workflow(agent(llm_config=llm_config)).agents


@pytest.mark.parametrize(
    "name", ["", "a b", "1st", "größe", "a.b", "a\n", "-a", 5, None, "a" * 201]
)
def test_a_name_that_no_prompt_could_use_is_refused(name: Any) -> None:
    error = refusal([agent(), agent(name)])

    assert str(error).startswith("agents[1]: name is ")
    assert error.field == "agents[1].name"


@pytest.mark.parametrize("name", ["a", "_a", "invoice-parser", "Step_2", "a" * 200])
def test_a_name_that_prompts_can_use_is_accepted(name: str) -> None:
    assert workflow(agent(name)).get_agent_by_name(name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "the workflow's name is ''"),
        ({"name": None}, "the workflow's name is None"),
        ({"name": "x" * 201}, "1 to 200 characters"),
        ({"description": 5}, "the workflow's description is 5"),
        ({"max_parallel_agents": 0}, "max_parallel_agents is 0"),
        ({"cost_budget": -1}, "cost_budget is -1"),
        ({"cost_budget": float("inf")}, "cost_budget is inf"),
        ({"timeout": 0}, "timeout is 0"),
        ({"priority": 11}, "priority is 11"),
        ({"allow_partial_completion": 1}, "allow_partial_completion is 1: give True or False"),
        ({"agents": []}, "agents is empty: give at least one agent"),
        ({"agents": [{"name": "extract"}]}, "agents[0] is {'name': 'extract'}: give an Agent"),
    ],
)
def test_a_workflow_out_of_bounds_is_refused(fields: dict[str, Any], message: str) -> None:
    error = refusal(**({"agents": [agent()]} | fields))

    assert message in str(error)
    assert str(error.field).startswith(next(iter(fields)))


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("x" * 500_001, "has 500,001 characters, the limit is 500,000: put long texts into the"),
        ("{" * 20_001, "has 20,001 braces, the limit is 20,000: put long JSON into the input"),
    ],
)
def test_a_prompt_that_takes_long_to_read_is_refused(prompt: str, problem: str) -> None:
    with pytest.raises(WorkflowError, match=problem):
        validate_workflow(Workflow(name="w", agents=[agent("a", prompt)]))


def test_a_duplicate_name_is_refused() -> None:
    error = refusal([agent(), agent("report"), agent()])

    assert "two agents are named 'extract'" in str(error)
    assert error.field == "agents[2].name"


def test_an_unknown_dependency_is_refused_with_what_may_have_been_meant() -> None:
    error = refusal([agent(), agent("report", dependencies=["extrct"])])

    assert "agent 'report' depends on 'extrct'" in str(error)
    assert "did you mean 'extract'?" in str(error)
    assert error.field == "agents[1].dependencies"


def test_a_cycle_is_refused_with_its_path() -> None:
    error = refusal(
        [
            agent("a", dependencies=["c"]),
            agent("b", dependencies=["a"]),
            agent("c", dependencies=["b"]),
        ]
    )

    assert "a -> c -> b -> a" in str(error)


def test_a_prompt_may_use_outputs_of_direct_and_indirect_dependencies() -> None:
    accepted = workflow(
        agent("a"),
        agent("b", dependencies=["a"]),
        agent("c", prompt="{a.total} {b} {anything}", dependencies=["b"]),
    )

    assert accepted.agents


def test_a_prompt_that_uses_an_agent_it_does_not_depend_on_is_refused() -> None:
    error = refusal([agent("a"), agent("b"), agent("c", "Sum {a.total} {b}.", dependencies=["b"])])

    assert str(error) == (
        "agent 'c': its prompt uses {a}, the output of an agent that it does not depend on: "
        "add 'a' to its dependencies, or rename the agent if a key of the input is meant"
    )
    assert error.field == "agents[2].prompt_template"


def test_a_prompt_that_uses_its_own_output_is_refused() -> None:
    error = refusal([agent("a", prompt="{a}")])

    assert "its own output" in str(error)


def test_a_malformed_placeholder_is_refused_with_the_ways_to_write_it() -> None:
    error = refusal([agent("a", prompt="Sum {total:.2f}.")])

    assert "prompt_template contains '{total:.2f}', which is not a placeholder" in str(error)
    assert "double its braces" in str(error)


def test_a_workflow_that_was_changed_can_be_checked_again() -> None:
    invoices = workflow(agent())
    invoices.agents[0].priority = 99

    with pytest.raises(WorkflowError, match="priority is 99"):
        validate_workflow(invoices)


def test_states_filled_in_by_the_engine_are_not_looked_at() -> None:
    invoices = workflow(agent())
    invoices.agents[0].status = AgentStatus.COMPLETED

    validate_workflow(invoices)


@pytest.mark.parametrize(
    ("run_input", "message"),
    [
        ({}, "placeholder {invoice.total} has no value: 'invoice' is neither a key of the input"),
        ({"invoce": {"total": 1}}, "did you mean 'invoce'"),
        ({"invoice": {"sum": 1}}, "'invoice' has no key 'total'; its keys are 'sum'"),
        ({"invoice": 5}, "'invoice' is a number, so it has no 'total'"),
    ],
)
def test_an_input_that_leaves_a_placeholder_empty_is_refused(
    run_input: dict[str, Any], message: str
) -> None:
    invoices = workflow(agent("extract", "Read {invoice.total}."))

    with pytest.raises(WorkflowError, match=message) as caught:
        validate_input(invoices, run_input)

    assert str(caught.value).startswith("agent 'extract': placeholder {invoice.total}")
    assert caught.value.field == "agents[0].prompt_template"


def test_an_input_that_fills_every_placeholder_is_accepted() -> None:
    invoices = workflow(
        agent("extract", "Read {invoice.lines[0].text} {{literal}}."),
        agent("report", "Sum {extract}.", dependencies=["extract"]),
    )

    validate_input(invoices, {"invoice": {"lines": [{"text": "x"}]}, "unused": [None, 1.5, True]})


def test_an_input_key_with_the_name_of_an_agent_that_a_prompt_uses_is_ambiguous() -> None:
    invoices = workflow(agent(), agent("report", "Sum {extract}.", dependencies=["extract"]))

    with pytest.raises(WorkflowError, match="rename the input's key 'extract'"):
        validate_input(invoices, {"extract": 1})


def test_an_input_key_with_the_name_of_an_agent_that_no_prompt_uses_is_accepted() -> None:
    validate_input(workflow(agent()), {"extract": 1})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def exponential() -> Any:
    value: Any = "x"
    for _ in range(40):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Decimal("1.5"), "is Decimal('1.5') (Decimal), which is not a JSON value: give str(value)"),
        (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "give value.isoformat()"),
        (dt.date(2026, 1, 1), "give value.isoformat()"),
        (b"raw", "decode it to text"),
        (uuid.UUID(int=1), "give str(value)"),
        (Path("x"), "give str(value)"),
        ({1, 2}, "give a list"),
        (AgentStatus.COMPLETED, "give its .value"),
        (object(), "give a dict, list, string, number, bool or None"),
        (float("nan"), "is nan, which is not JSON"),
        (float("inf"), "is inf, which is not JSON"),
        ("a\0", "contains a NUL character"),
        ("\ud800", "half a surrogate pair"),
        (1 << 2000, "too many digits"),
        ({1: "x"}, "has the key 1, not a string: give '1'"),
        ({"a\0": 1}, "has a key that contains a NUL character"),
        (nested(100), "nested more than 64 levels deep"),
        (cyclic(), "contains itself"),
        (exponential(), "values long"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_what_json_cannot_say_is_refused_with_its_path_and_the_remedy(
    value: Any, message: str
) -> None:
    with pytest.raises(WorkflowError) as caught:
        validate_input(workflow(agent()), {"fine": 1, "invoice": {"lines": [0, value]}})

    assert message in str(caught.value)
    assert str(caught.value).startswith("input.invoice.lines[1]")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("run_input", [None, [], "text", 5])
def test_an_input_that_is_no_object_is_refused(run_input: Any) -> None:
    with pytest.raises(WorkflowError, match="give a dict with one key per placeholder"):
        validate_input(workflow(agent()), run_input)


def checked_in_s(count: int) -> float:
    """Seconds of the processor that a chain of so many agents takes to be checked."""
    agents = [
        agent(
            f"a{index}",
            f"Go on from {{a{index - 2}}}." if index > 1 else "Begin with {text}.",
            dependencies=[f"a{index - 1}"] if index else [],
        )
        for index in range(count)
    ]
    started_s = time.process_time()
    validate_input(workflow(*agents), {"text": "x"})
    return time.process_time() - started_s


def test_ten_times_the_agents_take_about_ten_times_as_long_to_be_checked() -> None:
    thousand_s = min(checked_in_s(1_000) for _ in range(3))

    assert min(checked_in_s(10_000) for _ in range(3)) < 30 * thousand_s

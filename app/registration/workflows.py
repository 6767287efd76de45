"""Checks a workflow's names, conditions and schemas when the workflow is registered.

Two libraries check the conditions and the schemas. When the workflow runs, the same two libraries
evaluate its conditions and apply its schemas.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from app.conditions.program import compiled
from app.domain.agent import Agent
from app.domain.kinds import LLM
from app.domain.mistakes import Mistake, inside, mistakes_of, refuse_all
from app.domain.plain_text import find_name_problem
from app.domain.schemas import schema_of
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.errors import WorkflowError
from app.registration.output_schemas import check_schema


def check_workflow(workflow: Workflow) -> None:
    """Refuse a workflow whose names, conditions or schemas are not valid.

    Raises:
        WorkflowError: If a name, a condition or a schema is not valid. The message names the agent,
            and the error has the path of the field.
    """
    checks: list[Callable[[], None]] = [
        partial(_check_name, workflow.name, "the workflow's name", "name")
    ]
    for index, agent in enumerate(workflow.agents):
        place = f"agents[{index}]"
        what = f"agent {agent.name!r}: module"
        checks += [
            partial(_check_name, agent.module, what, f"{place}.module"),
            *_model_names(agent, place),
            partial(_check_condition, workflow, agent, place),
            partial(
                _check_schema,
                agent.output_schema,
                f"agent {agent.name!r}: ",
                f"{place}.output_schema",
            ),
        ]
    checks.append(partial(_check_schema, workflow.input_schema, "", "input_schema"))
    refuse_all(checks)


def _model_names(agent: Agent, place: str) -> Iterator[Callable[[], None]]:
    for number, option in enumerate(agent.options() if agent.kind == LLM else ()):
        models = f"fallbacks[{number - 1}]" if number else "llm_config"
        what = f"agent {agent.name!r}: {models}.model"
        yield partial(_check_name, option.model, what, f"{place}.{models}.model")


def mistakes_everywhere(
    workflow: Workflow, checks: Sequence[Callable[[Workflow], object]]
) -> Iterator[Mistake]:
    """Run checks on a workflow and on each of its sub-workflows, and yield all mistakes.

    Args:
        workflow: The outer workflow.
        checks: Functions that raise the mistakes of one workflow.
    """
    for check in checks:
        yield from mistakes_of(partial(check, workflow))
    for index, agent in enumerate(workflow.agents):
        if (inner := embedded(agent)) is not None:
            found = mistakes_everywhere(inner, checks)
            yield from inside(found, agent.name, f"agents[{index}].config.workflow")


def _check_condition(workflow: Workflow, agent: Agent, place: str) -> None:
    try:
        if condition := workflow.data_flow.condition(agent):
            compiled(condition)
    except WorkflowError as error:
        raise WorkflowError(
            f"agent {agent.name!r}: condition {error}", field=f"{place}.condition"
        ) from error


def _check_schema(schema: Any, whose: str, field: str) -> None:
    if schema is None:
        return
    try:
        check_schema(schema_of(schema))
    except WorkflowError as error:
        name = field.rpartition(".")[2]
        raise WorkflowError(f"{whose}{name} {error}", field=field) from error


def _check_name(name: str, what: str, field: str) -> None:
    # Workflows that were stored by an earlier version may have such names. Therefore a workflow
    # that is read from Postgres is not checked here, and every output makes names visible.
    if problem := find_name_problem(name):
        raise WorkflowError(f"{what} {problem}", field=field)

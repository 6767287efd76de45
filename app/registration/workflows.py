"""Checks a workflow's names, conditions and schemas when the workflow is registered.

Two libraries check the conditions and the schemas. When the workflow runs, the same two libraries
evaluate its conditions and apply its schemas.
"""

from app.conditions.program import compiled
from app.domain.agent import schema_of
from app.domain.kinds import LLM
from app.domain.plain_text import find_name_problem
from app.domain.workflow import Workflow
from app.errors import WorkflowError
from app.registration.output_schemas import check_schema


def check_workflow(workflow: Workflow) -> None:
    """Refuse a workflow whose names, conditions or schemas are not valid.

    Raises:
        WorkflowError: If a name, a condition or a schema is not valid. The message names the agent,
            and the error has the path of the field.
    """
    _check_name(workflow.name, "the workflow's name", "name")
    for index, agent in enumerate(workflow.agents):
        _check_name(agent.module, f"agent {agent.name!r}: module", f"agents[{index}].module")
        for place, option in enumerate(agent.options() if agent.kind == LLM else ()):
            models = f"fallbacks[{place - 1}]" if place else "llm_config"
            what = f"agent {agent.name!r}: {models}.model"
            _check_name(option.model, what, f"agents[{index}].{models}.model")
        field = "condition"
        try:
            if condition := workflow.data_flow.condition(agent):
                compiled(condition)
            field = "output_schema"
            if agent.output_schema is not None:
                check_schema(schema_of(agent.output_schema))
        except WorkflowError as error:
            raise WorkflowError(
                f"agent {agent.name!r}: {field} {error}", field=f"agents[{index}].{field}"
            ) from error


def _check_name(name: str, what: str, field: str) -> None:
    # Workflows that were stored by an earlier version may have such names. Therefore a workflow
    # that is read from Postgres is not checked here, and every output makes names visible.
    if problem := find_name_problem(name):
        raise WorkflowError(f"{what} {problem}", field=field)

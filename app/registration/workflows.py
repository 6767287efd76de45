"""Checks a workflow's conditions and schemas when the workflow is registered.

Two libraries make these checks. When the workflow runs, the same two libraries evaluate its
conditions and apply its schemas.
"""

from app.conditions.program import compiled
from app.domain.agent import schema_of
from app.domain.workflow import Workflow
from app.errors import WorkflowError
from app.registration.output_schemas import check_schema


def check_workflow(workflow: Workflow) -> None:
    """Refuse a workflow whose conditions or schemas are not valid.

    Raises:
        WorkflowError: If a condition or a schema is not valid. The message names the agent, and the
            error has the path of the field.
    """
    for index, agent in enumerate(workflow.agents):
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

"""The steps before a workflow is stored: the workflow is completed, routed, and checked."""

from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.settings import Settings
from app.costs.pricing import Pricing
from app.domain.providers import routed
from app.domain.scope import Scope
from app.domain.sub_workflow import all_workflows, check_nesting, named_workflows, transformed
from app.domain.workflow import Workflow
from app.kinds.registry import KindRegistry
from app.registration.calls import check_calls
from app.registration.workflows import check_workflow
from app.storage.runs import with_stored_workflows


class Acceptance:
    """Accepts or refuses workflows.

    Args:
        settings: Settings with the providers, the prices and the maximum nesting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pricing = Pricing(settings.costs, settings.all_providers())
        self._kinds = KindRegistry()

    async def complete(
        self, connection: AsyncConnection, workflow: Workflow, scope: Scope
    ) -> Workflow:
        """Fill in a workflow's sub-workflows and providers, check the whole workflow, return it.

        Raises:
            WorkflowError: If no workflow has the name of a sub-workflow, if sub-workflows are
                nested too deep, or if no provider serves an agent. This error is also raised if a
                condition or an output schema cannot be used, if an agent's kind is not known here,
                or if the kind refuses the agent's settings.
            OutOfScope: If a tenant's workflow refers to a sub-workflow only by the sub-workflow's
                name. Stored workflows belong to no tenant, so another tenant may have used that
                name.
        """
        if named_workflows(workflow):
            scope.check_all("stored workflows belong to no tenant (embed the sub-workflows)")
        return self.check(await with_stored_workflows(connection, workflow))

    def check(self, workflow: Workflow) -> Workflow:
        """Fill in the providers of a workflow, check the workflow and return it.

        Raises:
            WorkflowError: As in ``complete``. Sub-workflows of which only the name is given are not
                checked.
        """
        found = transformed(workflow, partial(routed, providers=self._settings.all_providers()))
        check_nesting(found, max_depth=self._settings.engine.max_depth)
        for each in all_workflows(found):
            check_workflow(each)
            self._kinds.validate(each)
        return found

    def check_calls(self, workflow: Workflow) -> None:
        """Refuse a completed workflow if one of its calls is not possible.

        Raises:
            UnknownModel: If a model has no price.
            WorkflowError: If a model does not accept a parameter of the agent.
        """
        for each in all_workflows(workflow):
            check_calls(
                each,
                providers=self._settings.all_providers(),
                pricing=self._pricing,
                default_max_tokens=self._settings.engine.default_max_tokens,
            )

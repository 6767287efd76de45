"""What a workflow goes through before it is stored: completed, routed to providers, and checked."""

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
        settings: Providers, prices and the deepest nesting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pricing = Pricing(settings.costs, settings.all_providers())
        self._kinds = KindRegistry()

    async def complete(
        self, connection: AsyncConnection, workflow: Workflow, scope: Scope
    ) -> Workflow:
        """Return a workflow with its sub-workflows and providers filled in, and all of it checked.

        Raises:
            WorkflowError: If no workflow has the name of a sub-workflow, they are nested too deep,
                no provider serves an agent, a condition or an output schema could not be used, or
                an agent's kind is not known here or refuses its settings.
            OutOfScope: If a tenant's workflow only names a sub-workflow: stored workflows are no
                tenant's, so the name could be that of another tenant's.
        """
        if named_workflows(workflow):
            scope.check_all("stored workflows are no tenant's: embed the sub-workflows")
        found = await with_stored_workflows(connection, workflow)
        found = transformed(found, partial(routed, providers=self._settings.all_providers()))
        check_nesting(found, max_depth=self._settings.engine.max_depth)
        for each in all_workflows(found):
            check_workflow(each)
            self._kinds.validate(each)
        return found

    def check_calls(self, workflow: Workflow) -> None:
        """Refuse a completed workflow if calls of it could not be made.

        Raises:
            UnknownModel: If a model has no price.
            WorkflowError: If a model does not take a parameter.
        """
        for each in all_workflows(workflow):
            check_calls(
                each,
                providers=self._settings.all_providers(),
                pricing=self._pricing,
                default_max_tokens=self._settings.engine.default_max_tokens,
            )

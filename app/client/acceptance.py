"""The steps before a workflow is stored: the workflow is completed, routed, and checked."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.settings import Settings
from app.costs.pricing import Pricing
from app.domain.input_validation import validate_input
from app.domain.json_values import find_json_problem
from app.domain.loaded import Loaded, find_unloaded
from app.domain.mistakes import Mistake, mistakes_of, refuse
from app.domain.path_validation import find_missing_parts
from app.domain.providers import routed
from app.domain.schemas import schema_of
from app.domain.scope import Scope
from app.domain.sub_workflow import check_nesting, named_workflows, transformed
from app.domain.workflow import Workflow
from app.errors import OutputInvalid, WorkflowError
from app.kinds.registry import KindRegistry
from app.registration.calls import check_calls
from app.registration.output_schemas import OutputSchemas, check_schema
from app.registration.workflows import check_workflow, mistakes_everywhere
from app.sandbox.processes import Sandbox
from app.sandbox.turns import Turn
from app.storage.runs import with_stored_workflows
from app.storage.worker_loads import read_live


class Acceptance:
    """Accepts or refuses workflows.

    Args:
        settings: Settings with the providers, the prices and the maximum nesting.
        sandbox: Applies large schemas to inputs.
    """

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._settings = settings
        self._schemas = OutputSchemas(sandbox)
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
        return self.check(await self._with_stored(connection, workflow, scope))

    async def accept(
        self, connection: AsyncConnection, workflow: Workflow, scope: Scope
    ) -> Workflow:
        """Complete a workflow as ``complete`` does, check its calls as well, and return it.

        Raises:
            WorkflowError: As in ``complete`` and in ``check_calls``.
            UnknownModel: If the only mistake is a model without a price.
            OutOfScope: As in ``complete``.
        """
        whole = await self._with_stored(connection, workflow, scope)
        return self.check(whole, calls=True)

    async def _with_stored(
        self, connection: AsyncConnection, workflow: Workflow, scope: Scope
    ) -> Workflow:
        if named_workflows(workflow):
            scope.check_all("stored workflows belong to no tenant (embed the sub-workflows)")
        return await with_stored_workflows(connection, workflow)

    def check(
        self,
        workflow: Workflow,
        *,
        calls: bool = False,
        workers: Sequence[Loaded] = (),
        others: Sequence[Mistake] = (),
    ) -> Workflow:
        """Fill in the providers of a workflow, check the workflow and return it.

        Args:
            workflow: The workflow. Sub-workflows of which only the name is given are not checked.
            calls: Whether to check the calls as well, as in ``check_calls``.
            workers: The names of the code that live workers load. If no live worker of an agent's
                queue loads the code that the agent names, the workflow is refused.
            others: Mistakes that other checks have found; they are raised in the same error.

        Raises:
            WorkflowError: As in ``complete``. All mistakes are in one error.
            UnknownModel: If the only mistake is a model without a price.
        """
        mistakes: list[Mistake] = []
        found = workflow
        try:
            found = transformed(workflow, partial(routed, providers=self._settings.all_providers()))
            check_nesting(found, max_depth=self._settings.engine.max_depth)
        except WorkflowError as error:
            mistakes += error.mistakes
        is_routed = not mistakes
        checks: list[Callable[[Workflow], object]] = [check_workflow, self._kinds.validate]
        if calls and is_routed:
            checks.append(self._check_calls)
        mistakes += mistakes_everywhere(found, checks)
        mistakes += find_missing_parts(found)
        if is_routed:
            mistakes += find_unloaded(found, workers)
        refuse([*mistakes, *others])
        return found

    def check_calls(self, workflow: Workflow) -> None:
        """Refuse a completed workflow if one of its calls is not possible.

        Raises:
            UnknownModel: If a model has no price.
            WorkflowError: If a model does not accept a parameter of the agent.
        """
        refuse(mistakes_everywhere(workflow, [self._check_calls]))

    async def check_before_run(
        self,
        connection: AsyncConnection,
        workflow: Workflow,
        run_input: Mapping[str, Any],
        scope: Scope,
    ) -> Workflow:
        """Make all checks that are possible before a run; store nothing.

        In addition to ``check_run``, stored sub-workflows and the names of the code that live
        workers load are read from Postgres.

        Raises:
            WorkflowError: As in ``check_run``.
            UnknownModel: As in ``check_run``.
            OutOfScope: As in ``complete``.
        """
        whole = await self._with_stored(connection, workflow, scope)
        workers = await read_live(connection)
        return await self.check_run(whole, run_input, tenant=scope.tenant, workers=workers)

    async def check_run(
        self,
        workflow: Workflow,
        run_input: Mapping[str, Any],
        *,
        tenant: str | None = None,
        workers: Sequence[Loaded] = (),
    ) -> Workflow:
        """Check a workflow, its calls and an input, and return the workflow as ``check`` does.

        Args:
            workflow: The workflow.
            run_input: The input.
            tenant: Tenant of the run.
            workers: As in ``check``.

        Raises:
            WorkflowError: If there are mistakes; all of them are in one error.
            UnknownModel: If the only mistake is a model without a price.
        """
        found = await self.input_mistakes(workflow, run_input, tenant)
        return self.check(workflow, calls=True, workers=workers, others=found)

    async def check_input(
        self, workflow: Workflow, run_input: Mapping[str, Any], tenant: str | None = None
    ) -> None:
        """Refuse an input that does not fit a workflow.

        If the input has mistakes, the workflow is checked as well, so that the error has the
        mistakes of both. Otherwise the workflow is checked later, before it is stored.

        Raises:
            WorkflowError: If the input does not fit.
        """
        if found := await self.input_mistakes(workflow, run_input, tenant):
            self.check(workflow, calls=True, others=found)

    async def input_mistakes(
        self, workflow: Workflow, run_input: Mapping[str, Any], tenant: str | None
    ) -> list[Mistake]:
        """Return the mistakes of an input; the workflow itself is not checked."""
        mistakes = mistakes_of(partial(validate_input, workflow, run_input))
        schema = schema_of(workflow.input_schema)
        if schema is None or find_json_problem(run_input, "input"):
            return mistakes
        if mistakes_of(partial(check_schema, schema)):
            return mistakes  # the check of the workflow names the mistake in the schema
        turn = Turn(tenant, workflow.name)
        try:
            found = await self._schemas.find_problems(run_input, schema, "input", turn)
        except OutputInvalid as error:
            return [*mistakes, WorkflowError(str(error), field="input_schema")]
        return [*mistakes, *(WorkflowError(f"{path}: {text}", field=path) for path, text in found)]

    def _check_calls(self, workflow: Workflow) -> None:
        check_calls(
            workflow,
            providers=self._settings.all_providers(),
            pricing=self._pricing,
            default_max_tokens=self._settings.engine.default_max_tokens,
        )

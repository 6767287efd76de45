"""An agent of the kind ``workflow`` starts a run of another workflow, and ends with that run.

The attempt is over as soon as the run is stored. So the agent keeps no lane, no lease and no place
while the run goes on.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.input_validation import validate_input
from app.domain.schemas import schema_of
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.errors import OutputInvalid, RunConflict, SubWorkflowRefused, WorkflowError
from app.registration.output_schemas import OutputSchemas
from app.storage.group_commit import persist
from app.storage.sub_runs import SubRunAnswer, SubRunRequest, start_sub_run
from workers.inflight import LeaseGone, StopReason
from workers.jobs import Job


class SubWorkflowAgent:
    """Starts the runs of sub-workflows.

    Its weakness: each sub-workflow is a run, with its own rows, admission and levels. If a
    sub-workflow has only few agents, the alternative is to put these agents into the outer
    workflow.

    Args:
        engine: The process's engine.
        max_depth: Largest depth of nested sub-workflows.
        thresholds: Percentages of a run's budget. When the spent money passes one of these
            percentages, this is reported.
        schemas: Applies the ``input_schema`` of sub-workflows.

    Example:
        answer = await sub_workflows.start(job, {"case": 7})
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        max_depth: int,
        thresholds: Sequence[int],
        schemas: OutputSchemas,
    ) -> None:
        self._engine = engine
        self._schemas = schemas
        self._max_depth = max_depth
        self._thresholds = thresholds

    async def start(self, job: Job, inputs: Mapping[str, Any]) -> SubRunAnswer:
        """Start the run of a job's workflow.

        If an earlier attempt has started the run, a new round of this run begins instead.

        Args:
            job: The attempt.
            inputs: The input of the inner run, without values that have the name of an inner agent.
                No prompt of the inner workflow could read such a value.

        Raises:
            SubWorkflowRefused: If the input does not fit the inner workflow, or if sub-workflows
                are nested too deeply.
            LeaseGone: If the attempt must stop.
        """
        agent = job.agent
        workflow = embedded(agent)
        assert workflow is not None, "a stored workflow contains its sub-workflows"
        if len(job.run.ancestors) >= self._max_depth:
            raise SubWorkflowRefused(
                f"agent {agent.name!r}: sub-workflows are nested deeper than engine.max_depth, "
                f"{self._max_depth}: nest less, or raise the setting"
            )
        request = SubRunRequest(
            agent_run_id=job.claimed.id,
            attempt=job.claimed.attempt,
            run_id=job.run.run_id,
            workflow=workflow,
            input=inputs,
            limit_usd=job.claimed.limit_usd,
            thresholds=self._thresholds,
            seen=job.seen or "",
        )
        try:
            validate_input(workflow, inputs)
            await self._check_schema(job, workflow, inputs)
            answer = await persist(
                self._engine, partial(start_sub_run, request=request), name="start_sub_run"
            )
        except (WorkflowError, RunConflict, OutputInvalid) as error:
            raise SubWorkflowRefused(
                f"agent {agent.name!r}, workflow {workflow.name!r}: {error}"
            ) from error
        match answer:
            case SubRunAnswer.STOPPED:
                raise LeaseGone(StopReason.RUN_STOPPED)
            case SubRunAnswer.PAUSED:
                raise LeaseGone(StopReason.RUN_PAUSED)
            case SubRunAnswer.FENCED:
                raise LeaseGone(StopReason.LEASE_LOST)
        return answer

    async def _check_schema(self, job: Job, workflow: Workflow, given: Mapping[str, Any]) -> None:
        if workflow.input_schema is None:
            return
        schema = schema_of(workflow.input_schema)
        if problem := await self._schemas.find_problem(given, schema, "input", job.run.turn):
            raise WorkflowError(problem, field="input")

"""An agent of the kind workflow: a run of another workflow, which ends it when it ends.

The attempt is over as soon as that run is stored: no lane, lease or place waits for it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.sub_workflow import embedded
from app.domain.validation import validate_input
from app.errors import RunConflict, SubWorkflowRefused, WorkflowError
from app.storage.group_commit import persist
from app.storage.sub_runs import SubRunAnswer, SubRunRequest, start_sub_run
from workers.inflight import LeaseGone, StopReason
from workers.jobs import Job


class SubWorkflowAgent:
    """Starts the runs of sub-workflows.

    Args:
        engine: The process's engine.
        max_depth: How deep they may be nested.
        thresholds: Percentages of a run's budget whose passing is told.
    """

    def __init__(self, engine: AsyncEngine, *, max_depth: int, thresholds: Sequence[int]) -> None:
        self._engine = engine
        self._max_depth = max_depth
        self._thresholds = thresholds

    async def start(self, job: Job, inputs: Mapping[str, Any]) -> SubRunAnswer:
        """Start the run of a job's workflow, or let the one there is try again what failed.

        Args:
            job: Whose agent it is.
            inputs: The input of the inner run, but for what has the name of an agent there, because
                no prompt there could read it.

        Raises:
            SubWorkflowRefused: If the input does not fit, or it is nested too deep.
            LeaseGone: If the job may not go on.
        """
        agent = job.agent
        workflow = embedded(agent)
        assert workflow is not None, "names are replaced when a workflow is stored"
        if len(job.run.ancestors) >= self._max_depth:
            raise SubWorkflowRefused(
                f"agent {agent.name!r}: sub-workflows are nested deeper than engine.max_depth, "
                f"{self._max_depth}: nest less, or raise the setting"
            )
        names = {inner.name for inner in workflow.agents}
        given = {key: value for key, value in inputs.items() if key not in names}
        request = SubRunRequest(
            agent_run_id=job.claimed.id,
            attempt=job.claimed.attempt,
            run_id=job.run.run_id,
            workflow=workflow,
            input=given,
            limit_usd=job.claimed.limit_usd,
            thresholds=self._thresholds,
        )
        try:
            validate_input(workflow, given)
            answer = await persist(
                self._engine, partial(start_sub_run, request=request), name="start_sub_run"
            )
        except (WorkflowError, RunConflict) as error:
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

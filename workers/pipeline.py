"""One agent run, step by step: prepare, run, record. Every outcome is recorded, and not raised."""

import asyncio
import time
from collections.abc import Awaitable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from app.conditions.evaluator import ConditionEvaluator
from app.configuration.sections import EngineSettings
from app.domain.agent import AgentResult
from app.domain.condition import Condition
from app.domain.for_each import agent_of, items_of
from app.domain.json_text import write_json
from app.domain.kinds import LLM, WORKFLOW
from app.domain.paths import parse_output_path, part_of, reason_of
from app.domain.status import AgentStatus
from app.domain.waits import LongWait
from app.errors import (
    AgentError,
    MissingInput,
    OutputInvalid,
    ResultTooLarge,
)
from app.failures.decisions import Fail, Retry
from app.failures.handler import FailureHandler
from app.registration.output_schemas import OutputSchemas
from app.scheduler.scheduler import Scheduler
from app.storage.claims import ClaimedAgent
from app.storage.fan_out import Items
from app.storage.records import Ending, Record
from app.storage.sub_runs import SubRunAnswer
from workers.agents.kinds import KindAgents
from workers.agents.llm import LLMAgent
from workers.agents.sub_workflow import SubWorkflowAgent
from workers.call_clock import CallClock
from workers.claims import Step
from workers.endings import (
    completed,
    expanded,
    failed,
    interrupted,
    kept,
    skipped,
    stopped,
    waiting,
)
from workers.flower_events import FlowerEvents
from workers.inflight import InFlight, LeaseGone, Phase
from workers.jobs import Job
from workers.leaving import Leaving
from workers.records import RecordWriter, Written
from workers.run_contexts import RunContext
from workers.settling import Settling
from workers.texts import storable
from workers.views import beside, hashes_of, read, view_of
from workers.worker_metrics import WorkerMetrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Agents:
    """The code that runs attempts of each kind of agent, and applies conditions and schemas."""

    llm: LLMAgent
    kinds: KindAgents
    sub_workflows: SubWorkflowAgent
    conditions: ConditionEvaluator
    schemas: OutputSchemas


class Pipeline:
    """Executes claimed agents.

    Its weakness: an unexpected exception in any step is recorded as the failure of the agent, so
    that a defect costs one agent and not the lane. Only the log (``agent_crashed``) has the
    traceback.

    Args:
        inflight: The leases of this process.
        records: Writes records.
        agents: Runs an attempt in the way that suits the agent's kind.
        flower_events: Shows the attempt in Flower.
        metrics: Counts attempts, calls, tokens and dollars for Prometheus.
        failures: Decides on the consequence of a failure.
        scheduler: Acts when an agent has failed, when the items of a list are ready, and when the
            run of a sub-workflow is stored.
        limits: The largest output that is stored, and the longest list.

    Example:
        ready_in_s = await pipeline.execute(run, claimed, leaving)
    """

    def __init__(
        self,
        *,
        inflight: InFlight,
        records: RecordWriter,
        agents: Agents,
        flower_events: FlowerEvents,
        metrics: WorkerMetrics,
        failures: FailureHandler,
        scheduler: Scheduler,
        limits: EngineSettings,
    ) -> None:
        self._inflight = inflight
        self._records = records
        self._agents = agents
        self._flower_events = flower_events
        self._metrics = metrics
        self._failures = failures
        self._scheduler = scheduler
        self._limits = limits

    async def execute(
        self, run: RunContext, claimed: ClaimedAgent, leaving: Leaving
    ) -> float | None:
        """Run one claimed agent, and record its end.

        Args:
            run: The run of the agent.
            claimed: The claim.
            leaving: Knows whether the record is the last one of the level.

        Returns:
            After a retry or a long wait, the seconds until the agent may be claimed again; else
            None.
        """
        ids = {"run_id": str(run.run_id), "agent": claimed.name, "attempt": claimed.attempt}
        # Inside this block, every log line of every module names the agent.
        with bound_contextvars(**ids):
            return await self._execute(run, claimed, leaving)

    async def _execute(
        self, run: RunContext, claimed: ClaimedAgent, leaving: Leaving
    ) -> float | None:
        agent = run.workflow.get_agent_by_name(agent_of(claimed.name))
        assert agent is not None, f"claimed agent {claimed.name!r} is not in its own workflow"
        with self._inflight.lease(claimed) as lease:
            job = Job(
                run=run,
                agent=agent,
                claimed=claimed,
                lease=lease,
                settling=Settling(self._records, agent_run_id=claimed.id, attempt=claimed.attempt),
                clock=CallClock(agent.timeout, long_wait_s=self._limits.long_wait_s),
            )
            self._flower_events.started(job)
            with self._metrics.running(job):
                ending = await self._attempt(job)
            lease.enter(Phase.RECORDING)
            if isinstance(ending, SubRunAnswer):
                leaving.step_after(None)
                await self._go_on(self._scheduler.admit())
                return None
            if ending is not None and (waited_s := job.waits.notable_s):
                ending = replace(ending, waited_s=waited_s)
            step = leaving.step_after(ending)
            written = await self._record(job.settling.last(ending), job, step)
            leaving.move = leaving.move or written.move
        if ending is None or not written.accepted:
            log.warning("attempt_fenced")
            return None
        if ending.status is not AgentStatus.WAITING:  # a waiting agent ends with its items or run
            self._flower_events.ended(job, ending)
        self._metrics.ended(job, ending)
        if ending.status.is_failure:
            # The callback may change the agent, which later runs of the workflow share.
            self._failures.tell(deepcopy(job.agent), _result(job, ending))
        if ending.outcome == "failed":
            await self._go_on(self._scheduler.fail_early(run.run_id))
        elif ending.items is not None:
            await self._go_on(self._scheduler.spread(run.run_id))
        return ending.ready_in_s if ending.retry or ending.waits_for else None

    async def _go_on(self, step: Awaitable[object]) -> None:
        """Let the scheduler act on a record; after an error, leave the record to the watchdog."""
        try:
            await step
        except Exception:
            log.exception("scheduler_not_told")

    async def _attempt(self, job: Job) -> Ending | SubRunAnswer | None:
        """Run the attempt; return its ending, or the answer about a sub-workflow's stored run.

        The result is None if the lease is lost and only the cost of the attempt is left to book.
        """
        try:
            return await self._ending(job)
        except Exception as error:
            # A defect must cost one agent, and not all agents of the lane.
            log.exception("agent_crashed")
            return self._ended(job, AgentStatus.FAILED, error)
        except BaseException as error:  # noqa: BLE001  it may end only this attempt
            return self._failure(job, interrupted(job, error))

    async def _ending(self, job: Job) -> Ending | SubRunAnswer | None:
        try:
            return await self._result(job)
        except AgentError as error:
            return self._failure(job, error)
        except LeaseGone as gone:
            return stopped(job, gone.reason)
        except LongWait as wait:
            return waiting(job, wait)
        except asyncio.CancelledError:
            if job.lease.stopped is None:
                raise  # code of a user has cancelled the attempt
            return stopped(job, job.lease.stopped)

    async def _result(self, job: Job) -> Ending | SubRunAnswer:
        condition = job.run.workflow.data_flow.condition(job.agent)
        if condition and _judges(job, condition) and not await self._holds(job, condition):
            return skipped(job, condition)
        if job.is_list:
            return await beside(job, lambda: self._expanded(job))
        if job.agent.kind == WORKFLOW:
            inputs = await beside(job, lambda: read(job))
            return await self._agents.sub_workflows.start(job, inputs)
        inputs = await beside(job, lambda: read(job))
        if job.is_unchanged:
            return kept(job)
        output = await self._output(job, inputs)
        self._check_size(job, output)
        if not job.element:
            _check_mapping(job, output)
        return replace(completed(job, output), first_token_s=job.clock.first_token_s)

    async def _holds(self, job: Job, condition: Condition) -> bool:
        flow, run_input = job.run.workflow.data_flow, job.run.input
        seen = flow.judged(job.agent, run_input, job.claimed.outputs, job.element)
        return await self._agents.conditions.holds(
            condition, run_input=run_input, values=seen, turn=job.run.turn
        )

    async def _output(self, job: Job, inputs: Any) -> Any:
        """Run the agent on its inputs, or on its prompt and the sources of its attachments."""
        if job.agent.kind != LLM:
            output = await self._agents.kinds.run(job, inputs)
            await self._check_schema(job, output)
            return output
        prompt, sources = inputs
        job.prompt = prompt
        output = await self._agents.llm.run(job, prompt, sources)
        return storable(output) if isinstance(output, str) else output

    async def _check_schema(self, job: Job, output: Any) -> None:
        """Refuse an output that does not fit the schema of an agent that asks no model."""
        agent = job.agent
        if agent.output_schema is None:
            return
        problem = await self._agents.schemas.find_problem(
            output, agent.output_schema, "output", job.run.turn
        )
        if problem:
            raise OutputInvalid(
                f"agent {agent.name!r}: {problem}: correct the code that returns the output, "
                "or the schema"
            )

    def _expanded(self, job: Job) -> Ending:
        agents = {agent.name for agent in job.run.workflow.agents}
        values = view_of(job).values
        found = items_of(job.agent, values, agents=agents, max_items=self._limits.max_items)
        reads = sorted(job.run.workflow.data_flow.reads_by_items(job.agent))
        seen = hashes_of(job, found) if job.claimed.expanded else None
        items = Items(values=found, reads=reads, seen=seen)
        return expanded(job, items)

    async def _record(self, record: Record, job: Job, step: Step | None) -> Written:
        try:
            return await self._records.finish(record, step)
        except Exception as error:
            log.exception("record_refused")
            if step is not None:  # the record may be sound, and only the step has failed
                return await self._record(record, job, None)
            # Postgres refuses the row itself, so record a failure and the money, without the
            # result.
            ending = self._ended(job, AgentStatus.FAILED, error)
            return await self._records.finish(replace(record, ending=ending, tools=()), None)

    def _check_size(self, job: Job, output: Any) -> None:
        size = len(write_json(output))
        if size > self._limits.max_output_bytes:
            raise ResultTooLarge(
                f"agent {job.agent.name!r} answered {size:,} bytes, the limit is "
                f"{self._limits.max_output_bytes:,}: lower its max_tokens or raise "
                "engine.max_output_bytes"
            )

    def _failure(self, job: Job, error: AgentError) -> Ending:
        match self._failures.decide(job.agent, error, retries=job.claimed.retries):
            case Retry(after_s=after_s):
                retrying = self._ended(job, AgentStatus.PENDING, error)
                return replace(retrying, event="agent_retrying", ready_in_s=after_s, retry=True)
            case Fail(status=status):
                return self._ended(job, status, error)

    def _ended(self, job: Job, status: AgentStatus, error: Exception) -> Ending:
        return failed(job, status, error, text=storable(self._failures.text_of(error)))


def _judges(job: Job, condition: Condition) -> bool:
    """Whether this attempt evaluates its condition.

    A condition on the element is evaluated for each item. Any other condition of a list is
    evaluated once, before the items exist.
    """
    if job.agent.for_each is None:
        return True
    return job.is_list != bool(condition.elements)


def _check_mapping(job: Job, output: Any) -> None:
    """Refuse an output that lacks a part that ``output_mapping`` copies to the context."""
    for path, key in job.agent.output_mapping.items():
        parsed = parse_output_path(path)
        assert parsed is not None, "validate_agent refuses every other path"
        try:
            part_of(output, parsed)
        except MissingInput as error:
            raise OutputInvalid(
                f"agent {job.agent.name!r}: its output has no {path!r}, which output_mapping "
                f"gives to {key!r}: {reason_of(error)}"
            ) from error


def _result(job: Job, ending: Ending) -> AgentResult:
    """Return the result that ``on_failure`` gets when an agent has failed for good."""
    return AgentResult(
        agent_id=str(job.claimed.id),
        status=ending.status,
        error=ending.error,
        execution_time=time.time() - job.started_at,
        completed_at=datetime.now(UTC),
        retry_count=job.claimed.retries,
        metadata={
            "run_id": str(job.run.run_id),
            "workflow": job.run.workflow.name,
            "tenant": job.run.tenant,
            "attempts": job.claimed.attempt,
            "error_class": ending.error_class,
            **({} if ending.finish_reason is None else {"finish_reason": ending.finish_reason}),
            **({} if job.claimed.item_index is None else {"item": job.claimed.item_index}),
        },
    )

"""One agent run, step by step: prepare, run, record. It never raises: every way out is recorded."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import structlog

from app.domain.agent import AgentResult
from app.domain.prompt import render
from app.domain.status import AgentStatus
from app.errors import AgentError, ResultTooLarge
from app.failures.decisions import Fail, Retry
from app.failures.handler import FailureHandler
from app.storage.claims import ClaimedAgent
from app.storage.group_commit import GroupCommit
from app.storage.records import Ending, Record
from workers.agents.llm import LLMAgent
from workers.announcements import Announcements
from workers.inflight import InFlight, LeaseGone, Phase, StopReason
from workers.jobs import Job, RunContext
from workers.meters import Meters

log = structlog.get_logger(__name__)


class Pipeline:
    """Executes claimed agents.

    Args:
        inflight: The leases of this process.
        records: Group commit of records.
        llm: Runs llm agents.
        announcements: Tells Flower and the event stream.
        meters: Counts for Prometheus.
        failures: Decides what follows from a failure.
        give_up: Told of the run whenever one of its agents has failed, for good or not.
        max_output_bytes: Largest output that is stored.
    """

    def __init__(
        self,
        *,
        inflight: InFlight,
        records: GroupCommit[Record, bool],
        llm: LLMAgent,
        announcements: Announcements,
        meters: Meters,
        failures: FailureHandler,
        give_up: Callable[[UUID], Awaitable[None]],
        max_output_bytes: int,
    ) -> None:
        self._inflight = inflight
        self._records = records
        self._llm = llm
        self._announcements = announcements
        self._meters = meters
        self._failures = failures
        self._give_up = give_up
        self._max_output_bytes = max_output_bytes

    async def execute(self, run: RunContext, claimed: ClaimedAgent) -> float | None:
        """Run one claimed agent and record what became of it.

        Args:
            run: Its run.
            claimed: The claim.

        Returns:
            Seconds until it may be claimed again if it was given back for a retry, else None.
        """
        agent = run.workflow.get_agent_by_name(claimed.name)
        assert agent is not None, f"claimed agent {claimed.name!r} is not in its own workflow"
        with self._inflight.lease(claimed) as lease:
            job = Job(
                run=run, agent=agent, claimed=claimed, lease=lease, calling_left_s=agent.timeout
            )
            self._announcements.started(job)
            with self._meters.running(job):
                ending = await self._attempt(job)
            lease.phase = Phase.RECORDING
            record = Record(
                agent_run_id=claimed.id,
                attempt=claimed.attempt,
                calls=tuple(job.calls),
                ending=ending,
            )
            accepted = await self._record(record, job)
        if ending is None or not accepted:
            log.warning("attempt_fenced", **_ids(job))
            return None
        self._announcements.ended(job, ending, record.calls)
        self._meters.ended(job, ending, record.calls)
        if ending.status.is_failure:
            self._failures.tell(job.agent, _result(job, ending))
        if ending.outcome == "failed":
            try:
                await self._give_up(job.run.run_id)
            except Exception:
                # The failure is recorded: the run's rules are applied again at the level's end.
                log.exception("run_not_given_up", **_ids(job))
        return ending.ready_in_s if ending.retry else None

    async def _attempt(self, job: Job) -> Ending | None:
        """How the attempt ended; None if its lease is lost and only the money is left to book."""
        try:
            outputs = job.claimed.outputs
            absent = [name for name, output in outputs.items() if output is None]
            prompt = render(job.agent.prompt_template, {**job.run.input, **outputs}, absent=absent)
            output = storable(await self._llm.run(job, prompt))
            self._check_size(job, output)
        except AgentError as error:
            return self._failure(job, error)
        except LeaseGone as gone:
            return _stopped(job, gone.reason)
        except asyncio.CancelledError:
            return _stopped(job, job.lease.stopped or StopReason.DRAINED)
        except Exception as error:
            # A defect must cost one agent, not the lane with all its neighbours.
            log.exception("agent_crashed", **_ids(job))
            return _ended(job, AgentStatus.FAILED, error)
        return Ending(
            run_id=job.run.run_id,
            name=job.agent.name,
            status=AgentStatus.COMPLETED,
            outcome="completed",
            event="agent_completed",
            output=output,
        )

    async def _record(self, record: Record, job: Job) -> bool:
        try:
            return await self._records.submit(record)
        except Exception as error:
            # The row itself is refused: keep the money and the failure, drop the result.
            log.exception("record_refused", **_ids(job))
            ending = _ended(job, AgentStatus.FAILED, error)
            return await self._records.submit(replace(record, ending=ending))

    def _check_size(self, job: Job, output: Any) -> None:
        size = len(orjson.dumps(output))
        if size > self._max_output_bytes:
            raise ResultTooLarge(
                f"agent {job.agent.name!r} answered {size:,} bytes, the limit is "
                f"{self._max_output_bytes:,}: lower its max_tokens or raise engine.max_output_bytes"
            )

    def _failure(self, job: Job, error: AgentError) -> Ending:
        match self._failures.decide(job.agent, error, retries=job.claimed.retries):
            case Retry(after_s=after_s):
                retrying = _ended(job, AgentStatus.PENDING, error)
                return replace(retrying, event="agent_retrying", ready_in_s=after_s, retry=True)
            case Fail(status=status):
                return _ended(job, status, error)


def storable(text: str) -> str:
    """Text as Postgres can keep it: no NUL and no lone surrogates, which JSON may carry."""
    if text.isascii():
        return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    cleaned = text.encode("utf-8", "replace").decode()
    return cleaned.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _ended(job: Job, status: AgentStatus, error: Exception) -> Ending:
    return Ending(
        run_id=job.run.run_id,
        name=job.agent.name,
        status=status,
        outcome="failed",
        event=f"agent_{status}",
        error=storable(str(error) or type(error).__name__),
        error_class=type(error).__name__,
    )


def _stopped(job: Job, reason: StopReason) -> Ending | None:
    match reason:
        case StopReason.LEASE_LOST:
            return None
        case StopReason.RUN_STOPPED:
            return Ending(
                run_id=job.run.run_id,
                name=job.agent.name,
                status=AgentStatus.CANCELLED,
                outcome="cancelled",
                event="agent_cancelled",
                error="the run was stopped",
                error_class="RunStopped",
            )
        case StopReason.DRAINED | StopReason.RUN_PAUSED:
            return Ending(
                run_id=job.run.run_id,
                name=job.agent.name,
                status=AgentStatus.PENDING,
                outcome="handed_back",
                event="agent_handed_back",
            )


def _result(job: Job, ending: Ending) -> AgentResult:
    """What ``on_failure`` is told of an agent that failed for good."""
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
        },
    )


def _ids(job: Job) -> dict[str, str | int | UUID]:
    return {
        "run_id": str(job.run.run_id),
        "agent": job.agent.name,
        "attempt": job.claimed.attempt,
    }

"""Calls behind circuit breakers: who cannot be served now waits here, with no permit and no money.

A wrapper of ``Caller`` with the same interface.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.failures.breakers import CircuitBreakers, CircuitReopened, Ticket
from app.llm.base import LLMResponse, Message
from app.storage.group_commit import GroupCommit
from app.storage.history import HistoryLine, add_events
from app.storage.records import Record
from workers.agents.llm import Calls
from workers.inflight import Phase
from workers.jobs import Job

MAX_TOLD = 4096

log = structlog.get_logger(__name__)


class GuardedCaller:
    """Makes calls when their model's circuit lets them.

    Args:
        caller: Makes the calls.
        breakers: The circuits.
        records: Group commit of records: money that was held for a call that must wait is freed.
        engine: The process's engine, for the runs' history.
        long_wait_s: Who has to wait longer than this gives up, if he can come back.
    """

    def __init__(
        self,
        caller: Calls,
        breakers: CircuitBreakers,
        *,
        records: GroupCommit[Record, bool],
        engine: AsyncEngine,
        long_wait_s: float,
    ) -> None:
        self._caller = caller
        self._breakers = breakers
        self._records = records
        self._long_wait_s = long_wait_s
        self._lines: GroupCommit[HistoryLine, None] = GroupCommit(
            engine, add_events, name="history"
        )
        self._told: dict[tuple[UUID, str, str], None] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def call(
        self,
        job: Job,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
    ) -> LLMResponse:
        """See ``Caller.call``.

        Raises:
            CircuitOpen: If the circuit is open and the policy, or the job, says not to wait.
            LongWait: If it is open for long, and the job can come back later.
        """
        while True:
            job.ticket = ticket = await self._admit(job)
            left_s = job.calling_left_s
            try:
                response = await self._caller.call(job, messages, tools)
            except CircuitReopened:
                await self._free_money(job)
            except BaseException as error:
                ticket.ended(error, called_s=left_s - job.calling_left_s)
                raise
            else:
                ticket.ended(None, called_s=left_s - job.calling_left_s)
                return response
            finally:
                job.ticket = None

    async def _admit(self, job: Job) -> Ticket:
        provider, model = job.agent.provider, job.agent.model
        key = job.run.run_id, provider, model
        if self._breakers.is_open(provider, model):
            job.lease.phase = Phase.WAITING
            if key not in self._told:
                self._told[key] = None
                if len(self._told) > MAX_TOLD:
                    del self._told[next(iter(self._told))]
                self._note(job, "circuit_open")
        max_wait_s = self._long_wait_s if job.may_be_given_back else math.inf
        with job.waiting("circuit", lambda: f"{provider}/{model} circuit"):
            ticket = await self._breakers.admit(
                provider, model, wait=job.patient, max_wait_s=max_wait_s
            )
        if not ticket.token and key in self._told:
            del self._told[key]
            self._note(job, "circuit_closed")
        return ticket

    async def _free_money(self, job: Job) -> None:
        calls, job.calls = tuple(job.calls), []
        if calls:
            record = Record(agent_run_id=job.claimed.id, attempt=job.claimed.attempt, calls=calls)
            await self._records.submit(record)
            job.settled(calls)

    def _note(self, job: Job, type_: str) -> None:
        """Write a line of the run's history, in the background."""
        line = HistoryLine(
            run_id=job.run.run_id,
            agent_run_id=job.claimed.id,
            attempt=job.claimed.attempt,
            type=type_,
            data={
                "agent": job.agent.name,
                "provider": job.agent.provider,
                "model": job.agent.model,
            },
        )
        task = asyncio.create_task(self._lines.submit(line), name="history")
        self._writing.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("history_not_written", error=str(error))

"""Calls with fallbacks: what one model cannot answer, another one is asked.

A wrapper with the interface of ``Caller``. One attempt then makes several calls; each passes the
limits, the hold and the circuit breaker of its own provider, and has its own cost entry.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.errors import AgentError, CircuitOpen
from app.failures.classification import error_classes
from app.llm.base import LLMResponse, Message
from app.storage.group_commit import GroupCommit
from app.storage.history import HistoryLine, add_events
from app.storage.records import Record
from workers.agents.llm import Calls
from workers.jobs import Job
from workers.texts import storable

log = structlog.get_logger(__name__)


class FallbackCaller:
    """Makes calls with the agent's own model, and with its fallbacks where that fails.

    What comes of a call with all of them failed is the first error that another attempt may
    help against, or else the first one; so a fallback never makes an agent fail for good that
    would have been retried without it.

    Args:
        caller: Makes the calls.
        pricing: Prices: all options have one, or none is called.
        records: Group commit of records: a failed call is settled before the next one is made.
        engine: The process's engine, for the runs' history.
        redact: Takes secrets out of what is told of an error.
    """

    def __init__(
        self,
        caller: Calls,
        *,
        pricing: Pricing,
        records: GroupCommit[Record, bool],
        engine: AsyncEngine,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._redact = redact
        self._caller = caller
        self._pricing = pricing
        self._records = records
        self._lines: GroupCommit[HistoryLine, None] = GroupCommit(
            engine, add_events, name="history"
        )
        self._writing: set[asyncio.Task[None]] = set()

    async def call(
        self,
        job: Job,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
    ) -> LLMResponse:
        """See ``Caller.call``.

        Raises:
            UnknownModel: If one of the options has no price; no call was made then.
        """
        if not job.agent.fallbacks:
            return await self._caller.call(job, messages, tools)
        agent, options = job.agent, job.agent.options()
        for option in options:
            self._pricing.price_of(option.provider, option.model, option.llm_config)
        wanted = _classes(agent.fallback_on)
        errors: list[AgentError] = []
        try:
            job.patient = CircuitOpen not in wanted
            first = options[job.option]
            for place in range(job.option, len(options)):
                job.agent = options[place]
                try:
                    response = await self._caller.call(job, messages, tools)
                    # A conversation goes on with whom it has begun.
                    job.option = place
                    return response
                except wanted as error:
                    errors.append(error)
                except AgentError as error:
                    errors.append(error)
                    break
                if place + 1 == len(options) or job.calling_left_s <= 0:
                    break
                await self._settle(job)
                self._note(job, options[place], options[place + 1], errors[-1])
            failure = next((error for error in errors if error.retriable), errors[0])
            if isinstance(failure, CircuitOpen) and CircuitOpen in wanted:
                # Nobody else could help: wait for the first one, or fail, by the policy.
                await self._settle(job)
                job.agent, job.patient = first, True
                return await self._caller.call(job, messages, tools)
            raise failure
        finally:
            job.agent, job.patient = agent, True

    async def _settle(self, job: Job) -> None:
        """Free what the failed call had held: the next one may need it."""
        calls, job.calls = tuple(job.calls), []
        if not calls:
            return
        record = Record(agent_run_id=job.claimed.id, attempt=job.claimed.attempt, calls=calls)
        try:
            await self._records.submit(record)
        except BaseException:
            # Whether it was written is not known here; a call that comes twice is booked once.
            job.calls = [*calls, *job.calls]
            raise
        job.settled(calls)

    def _note(self, job: Job, failed: Agent, following: Agent, error: AgentError) -> None:
        """Write a line of the run's history, in the background."""
        facts = {
            "agent": failed.name,
            "provider": failed.provider,
            "model": failed.model,
            "error": storable(self._redact(str(error))),
            "error_class": type(error).__name__,
            "next_provider": following.provider,
            "next_model": following.model,
        }
        log.info("fallback", run_id=str(job.run.run_id), **facts)
        line = HistoryLine(
            run_id=job.run.run_id,
            agent_run_id=job.claimed.id,
            attempt=job.claimed.attempt,
            type="agent_fallback",
            data=facts,
        )
        task = asyncio.create_task(self._lines.submit(line), name="history")
        self._writing.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("history_not_written", error=str(error))


def _classes(names: Sequence[str]) -> tuple[type[AgentError], ...]:
    return tuple(kind for kind in error_classes() if kind.__name__ in names)

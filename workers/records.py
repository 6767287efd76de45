"""Writes the records of attempts; the last record of a level also makes the step of the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.storage.budget_waiters import WakeWaiters
from app.storage.group_commit import Delay, GroupCommit
from app.storage.progress import lock_runs
from app.storage.records import Record, apply_records
from workers.claims import Claims, Move, Step
from workers.worker_metrics import WorkerMetrics


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """The result of a record that was written.

    Attributes:
        accepted: Whether the record counted; see ``apply_records``.
        move: The result of the step; None if there was no step, or if the record did not count.
    """

    accepted: bool
    move: Move | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Writing:
    record: Record
    step: Step | None = None


class RecordWriter:
    """Writes records in batches, counts their calls, and makes the steps that belong to them.

    Its weakness: if a worker is killed, a watchdog books the worker's last calls. No counter
    includes these calls, but the ledger does.

    Args:
        engine: The process's engine.
        claims: Makes the steps.
        wake: See ``apply_records``.
        metrics: Counts the calls, also the calls of records that do not count.
        delay_s: Returns the seconds for which a batch waits for more records.

    Example:
        accepted = await records.submit(record)
        written = await records.finish(record, step)
        if written.move is not None:
            ...  # the run has advanced in the same transaction
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        claims: Claims,
        wake: WakeWaiters,
        metrics: WorkerMetrics,
        delay_s: Delay,
    ) -> None:
        self._claims = claims
        self._wake = wake
        self._metrics = metrics
        self._batches: GroupCommit[_Writing, Written] = GroupCommit(
            engine,
            self._write,
            name="record",
            key=lambda writing: writing.record.agent_run_id,
            delay_s=delay_s,
        )

    async def submit(self, item: Record) -> bool:
        """See ``Records``."""
        return (await self.finish(item, None)).accepted

    async def finish(self, record: Record, step: Step | None) -> Written:
        """Write a record, and make a step in the same transaction.

        Args:
            record: The record.
            step: The step that the lane makes if the record counts; the run has no outer run. None
                if the lane makes no step.
        """
        written = await self._batches.submit(_Writing(record=record, step=step))
        self._metrics.booked(record.calls)
        return written

    async def _write(
        self, connection: AsyncConnection, writings: Sequence[_Writing]
    ) -> list[Written]:
        run_ids = {writing.step.run_id for writing in writings if writing.step}
        # Runs are locked before agent runs and budgets, as in all transactions.
        locked = await lock_runs(connection, run_ids) if run_ids else []
        records = [writing.record for writing in writings]
        accepted = await apply_records(connection, records, wake=self._wake)
        steps: dict[UUID, Step] = {}  # one step for each run, by agent run
        for writing, counts in zip(writings, accepted, strict=True):
            if counts and writing.step and writing.step.run_id in run_ids:
                run_ids.remove(writing.step.run_id)
                steps[writing.record.agent_run_id] = writing.step
        made = await self._claims.step(connection, list(steps.values()), locked) if steps else []
        moves = dict(zip(steps, made, strict=True))
        return [
            Written(accepted=counts, move=moves.get(record.agent_run_id))
            for record, counts in zip(records, accepted, strict=True)
        ]

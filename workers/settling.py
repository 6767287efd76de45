"""The calls and the ends of tool calls that an attempt has not written yet.

All these calls and ends are written with the next record of the attempt. If it is unknown whether a
record was written, the record's calls are kept for the next record. If a call is written twice, it
is booked only once.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from app.storage.records import CallRecord, Ending, Record
from app.storage.turns import ToolCallRecord, TurnRecord


class Records(Protocol):
    """Writes records; see ``workers.records``."""

    async def submit(self, item: Record) -> bool:
        """Write a record, and return whether the attempt still owns its agent run."""
        ...


class Settling:
    """The calls and tool calls of one attempt, until they are written.

    Its weakness: the calls are only in memory until they are written. If the worker is killed, the
    watchdog books the holds of these calls as ``unconfirmed``, at their worst case.

    Args:
        records: Writes the records.
        agent_run_id: The agent run of the attempt.
        attempt: The number of the attempt.

    Example:
        settling.note(call)
        await settling.write()  # frees the call's money before the next call
        await records.submit(settling.last(ending))
    """

    def __init__(self, records: Records, *, agent_run_id: UUID, attempt: int) -> None:
        self._records = records
        self._agent_run_id = agent_run_id
        self._attempt = attempt
        self._calls: list[CallRecord] = []
        self._tools: list[ToolCallRecord] = []
        self._written_usd = Decimal(0)

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """The calls that are not written yet."""
        return tuple(self._calls)

    @property
    def tools(self) -> tuple[ToolCallRecord, ...]:
        """The tool calls whose end is not written yet."""
        return tuple(self._tools)

    @property
    def spent_usd(self) -> Decimal:
        """Dollars that the written and the unwritten calls of the attempt have cost."""
        return sum((call.cost_usd for call in self._calls), self._written_usd)

    def note(self, call: CallRecord) -> None:
        """Keep a call for the next record."""
        self._calls.append(call)

    def note_tools(self, tools: Sequence[ToolCallRecord]) -> None:
        """Keep the ends of tool calls for the attempt's last record."""
        self._tools += tools

    async def write(
        self, tools: Sequence[ToolCallRecord] = (), turn: TurnRecord | None = None
    ) -> bool:
        """Write the calls now, so that the money held for these calls is free before the next call.

        Args:
            tools: The tool calls that are written together with the calls.
            turn: The answer that asks for tools; this answer is written together with the calls.
                None if there is no answer to write.

        Returns:
            Whether the attempt still owns its agent run; True if there was nothing to write.
        """
        if not self._calls and not tools and turn is None:
            return True
        calls, self._calls = self._calls, []
        record = Record(
            agent_run_id=self._agent_run_id,
            attempt=self._attempt,
            calls=tuple(calls),
            turn=turn,
            tools=tuple(tools),
        )
        try:
            accepted = await self._records.submit(record)
        except BaseException:
            # It is not known whether the record was written.
            self._calls = [*calls, *self._calls]
            raise
        self._written_usd += sum((call.cost_usd for call in calls), Decimal(0))
        return accepted

    def last(self, ending: Ending | None) -> Record:
        """Return the attempt's last record: the ending, with all unwritten calls and tool calls."""
        return Record(
            agent_run_id=self._agent_run_id,
            attempt=self._attempt,
            calls=self.calls,
            ending=ending,
            tools=self.tools,
        )

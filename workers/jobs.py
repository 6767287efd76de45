"""A job: one claimed agent together with everything its execution needs to know."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.domain.agent import Agent
from app.domain.for_each import INDEX, ITEM
from app.domain.workflow import Workflow
from app.failures.breakers import Ticket
from app.storage.claims import ClaimedAgent
from app.storage.records import CallRecord
from app.storage.turns import ToolCallRecord
from workers.inflight import Lease

#: What was shorter is not noted in the history.
NOTABLE_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """What all agents of a run share."""

    run_id: UUID
    workflow_id: UUID
    workflow: Workflow
    version: int
    tenant: str | None
    input: Mapping[str, Any]
    weight: float
    ancestors: tuple[UUID, ...] = ()

    @property
    def budget_ids(self) -> tuple[UUID, ...]:
        """The run's own budget, which has its id, and those of the runs around it.

        Standing ones are found with each hold.
        """
        return (self.run_id, *self.ancestors)


@dataclass(kw_only=True, slots=True)
class Job:
    """One attempt of one agent.

    Attributes:
        run: What it shares with the other agents of its run.
        agent: Its definition; during a call of a fallback, with that one's ``llm_config``.
        claimed: The claim.
        lease: Its place in the heartbeat.
        calling_left_s: Seconds of its timeout that are left for calling.
        started_at: When it started, in seconds since the epoch, for those who watch.
        turns: Calls made so far.
        first_token_s: Seconds to the first token of its first streamed answer.
        ticket: Its way through its model's circuit breaker, during a call.
        option: The first of the agent's options that is still called: 0 is the agent itself.
        patient: Whether it waits at an open circuit, if the configuration says so.
        calls: Calls made and not yet written; they are written with the next record.
        tools: What has become of tool calls, as far as it is not yet written; so are they.
        called: Whether a call has been made that no other attempt could go on from.
        waits_s: Seconds it has waited, by reason (``limit``, ``money``, ``circuit``) and by what
            it was in words, such as ``openai/default requests_per_minute``.
        settled_usd: Dollars of calls that were written before its end.
        prompt: What its model is asked, once it is put together.
    """

    run: RunContext
    agent: Agent
    claimed: ClaimedAgent
    lease: Lease
    calling_left_s: float
    started_at: float = field(default_factory=time.time)
    turns: int = 0
    first_token_s: float | None = None
    ticket: Ticket | None = None
    option: int = 0
    patient: bool = True
    calls: list[CallRecord] = field(default_factory=list)
    tools: list[ToolCallRecord] = field(default_factory=list)
    called: bool = False
    waits_s: dict[tuple[str, str], float] = field(default_factory=dict)
    settled_usd: Decimal = Decimal(0)
    prompt: str | None = None

    @contextmanager
    def waiting(self, reason: str, waits_for: Callable[[], str]) -> Iterator[None]:
        """It waits, if only for a moment; at the end of it is asked what for."""
        since_s = time.monotonic()
        try:
            yield
        finally:
            key = reason, waits_for()
            self.waits_s[key] = self.waits_s.get(key, 0.0) + time.monotonic() - since_s

    @property
    def waited_s(self) -> dict[str, float]:
        """Seconds it has waited, by reason."""
        sums: dict[str, float] = {}
        for (reason, _), seconds in self.waits_s.items():
            sums[reason] = sums.get(reason, 0.0) + seconds
        return sums

    @property
    def notable_waits_s(self) -> dict[str, float]:
        """Seconds it has waited, by what for, as far as anybody would ask about it."""
        return {
            waits_for: seconds
            for (_, waits_for), seconds in self.waits_s.items()
            if seconds >= NOTABLE_S
        }

    def settled(self, calls: Sequence[CallRecord]) -> None:
        """Calls were written before its end."""
        self.settled_usd += sum((call.cost_usd for call in calls), Decimal(0))

    @property
    def may_be_given_back(self) -> bool:
        """Whether another attempt can go on where this one stands."""
        return not self.called

    @property
    def element(self) -> dict[str, Any]:
        """The element of its list and that one's place, by the names of prompts; or nothing."""
        if self.claimed.item_index is None:
            return {}
        return {ITEM: self.claimed.item, INDEX: self.claimed.item_index}

    @property
    def is_list(self) -> bool:
        """Whether it stands for a whole for_each: it has to find out what its items are."""
        return self.agent.for_each is not None and self.claimed.item_index is None

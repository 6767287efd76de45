"""A job: one claimed agent together with what its attempt owns."""

import time
from dataclasses import dataclass, field
from typing import Any

from app.domain.agent import Agent
from app.domain.for_each import INDEX, ITEM
from app.storage.claims import ClaimedAgent
from workers.call_clock import CallClock
from workers.inflight import Lease
from workers.run_contexts import RunContext
from workers.settling import Settling
from workers.waits import Waits


@dataclass(kw_only=True, slots=True)
class Job:
    """One attempt of one agent.

    Attributes:
        run: What it shares with the other agents of its run.
        agent: Its definition.
        claimed: The claim.
        lease: Its place in the heartbeat.
        settling: Its calls and tool calls, until they are written.
        clock: The time that it has for calling.
        waits: How long it has waited, and for what.
        started_at: When it started, in seconds since the epoch, for those who watch.
        prompt: What its model is asked, once it is put together.
    """

    run: RunContext
    agent: Agent
    claimed: ClaimedAgent
    lease: Lease
    settling: Settling
    clock: CallClock
    waits: Waits = field(default_factory=Waits)
    started_at: float = field(default_factory=time.time)
    prompt: str | None = None

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

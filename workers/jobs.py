"""A job: one claimed agent, with everything that its attempt owns."""

import time
from dataclasses import dataclass, field
from typing import Any

from app.domain.agent import Agent
from app.domain.for_each import element_of
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
        run: The run, with the facts that all its agents share.
        agent: The agent's definition.
        claimed: The claim.
        lease: The lease, which the heartbeat renews.
        settling: Calls and tool calls that are not written yet.
        clock: The time that is left for calls.
        waits: The waiting times of the attempt, by reason and description.
        started_at: Start time of the attempt in seconds since the epoch. Only Flower and the
            metrics use this time.
        prompt: The rendered prompt; None before the prompt is rendered.
        seen: The hash of the values from which the output is made; None before these are read.
        finish_reason: The end of the last answer; None before an answer, and while a call is made.
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
    seen: str | None = None
    finish_reason: str | None = None

    @property
    def element(self) -> dict[str, Any]:
        """The list element and its index, by the names in prompts; empty if no element exists."""
        if self.claimed.item_index is None:
            return {}
        return element_of(self.agent, self.claimed.item, self.claimed.item_index)

    @property
    def is_read(self) -> bool:
        """Whether another agent reads the output; every output of a sub-workflow counts as read.

        The outputs of a sub-workflow are the output of the outer agent.
        """
        return bool(self.run.ancestors) or self.run.workflow.data_flow.is_read(self.agent.name)

    @property
    def is_unchanged(self) -> bool:
        """Whether the output that was accepted before a retry comes from the same values."""
        return self.seen is not None and self.claimed.seen == self.seen

    @property
    def is_list(self) -> bool:
        """Whether this agent stands for a whole ``for_each`` whose items are not yet known."""
        return self.agent.for_each is not None and self.claimed.item_index is None

"""The facts of a run and of the runs inside it: attempts, calls, tools, waits, events, open agents.

Each fact has the agent of the outer run to which the fact belongs, and the path of its agent run,
such as ``handled[20]/draft``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """A fact of one agent run, anywhere inside a run.

    Attributes:
        agent: Agent of the outer run to which the fact belongs.
        path: Path of the agent run; empty if the agent run is the agent itself.
    """

    agent: str
    path: str = ""

    @property
    def name(self) -> str:
        """The path of the agent run."""
        return self.path or self.agent


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt(Located):
    """One try of an agent run.

    ``provider`` is also the queue of the agent run. ``is_container`` says that the attempt only
    waits: for the elements of a list, or for the run of a sub-workflow.
    """

    provider: str = ""
    number: int
    worker: str
    outcome: str
    error: str | None = None
    error_class: str | None = None
    started_at: datetime
    finished_at: datetime | None = None
    finish_reason: str | None = None
    is_container: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Located):
    """One entry of the ledger; ``seconds`` is None if the call's end is not known."""

    provider: str
    model: str
    module: str
    kind: str
    outcome: str
    cost_usd: Decimal

    ended_at: datetime
    seconds: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse(Located):
    """One call of a tool."""

    state: str
    started_at: datetime
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait(Located):
    """The past waits of an agent run that have the same cause.

    Attributes:
        waits_for: Name of the cause in the history, such as ``openai/default requests_per_minute``.
        seconds: Sum of the waits, over all attempts.
        longest_s: Seconds of the longest wait.
        count: Number of the waits.
    """

    waits_for: str
    seconds: float
    longest_s: float
    count: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEvent:
    """One line of the history; ``agent`` is None if the line concerns the run itself."""

    type: str
    at: datetime
    data: Mapping[str, Any]
    agent: str | None = None
    path: str = ""

    @property
    def name(self) -> str | None:
        """The path of the agent run, or None."""
        return self.path or self.agent


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetState:
    """A budget for which an agent waits."""

    id: UUID
    scope: str
    subject: str
    period: str
    limit_usd: Decimal
    spent_usd: Decimal
    held_usd: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing(Located):
    """The state of one agent run that has not ended.

    Attributes:
        run_id: Run of the agent run; None means the outer run.
        status: ``pending``, ``running`` or ``waiting``.
        level: Level of the agent, from 0.
        provider: Provider of the agent, which is also the agent's queue.
        model: Model of the agent.
        ready_at: Earliest time at which a worker may claim the agent.
        is_element: Whether the agent run is an element of a list.
        item_count: The length of the list; None for an agent without a list.
        waits_for: The cause of the wait (a limit, money or a circuit) if the agent was handed back;
            otherwise None.
        retries: Number of retries so far.
        worker: Worker that runs the agent; None if no worker runs the agent.

        money_since: Time at which the agent's hold began to wait for money, or None.
        money_usd: Number of dollars for which the hold waits.
        budgets: Budgets that the hold needs.
        calling_since: Time at which the money of the current call was held, or None.
        called: Provider and model of the current call, such as ``openai/gpt-4o``.
        tool: Tool that is running, or None.
    """

    run_id: UUID | None = None
    status: str
    level: int
    provider: str
    model: str
    ready_at: datetime
    is_element: bool = False
    item_count: int | None = None
    waits_for: str | None = None
    retries: int = 0
    worker: str | None = None
    money_since: datetime | None = None
    money_usd: Decimal | None = None
    budgets: tuple[BudgetState, ...] = ()
    calling_since: datetime | None = None
    called: str | None = None
    tool: str | None = None


def superseded(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts that were followed by another attempt of the same agent run."""
    last = {each.name: each.number for each in attempts}
    return [each for each in attempts if each.number < last[each.name]]

"""The rings around a call to a provider: what goes in, what comes out, in which order they stand.

From the outside in::

    fallback   another model is asked where the first one fails
    cache      an answer that an equal request has brought already is taken
    circuit    while a model fails for everybody, calls wait here, without permit and money
    provider   permit, hold, request, account

A fallback stands outside, because each option has its own cached answers, circuit, limits and
money. The cache stands outside the circuit: what is known needs no provider. The circuit stands
outside permit and hold, because whatever waits there must hold neither.

A ring makes a new request from the one it was given, and never changes it; what it learns of the
call inside comes back as its outcome, or as an error. What is left to be written of the calls, the
time they took and what they waited for belongs to the attempt (``Job``), which counts it through
methods. The model are Temporal's interceptors (``temporalio/worker/_interceptor.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from app.domain.agent import Agent
from app.llm.base import LLMResponse, Message
from workers.inflight import Phase
from workers.jobs import Job

#: The rings around the provider's, from the inside out.
INSIDE_OUT = ("circuit", "cache", "fallback")


def always() -> None:
    """Let a call start: nothing speaks against it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallRequest:
    """One call that an attempt wants to make.

    Attributes:
        job: The attempt.
        agent: What is to be called: its agent, or that with the ``llm_config`` of a fallback.
        messages: The conversation so far.
        tools: Tools that the model may ask for.
        option: The first of the agent's options that may be called: 0 is the agent itself.
        waits_at_circuit: Whether it waits at an open circuit, if the configuration says so.
        before_start: Asked when permit and money are there; raises if the call may not start.
    """

    job: Job
    agent: Agent
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    option: int = 0
    waits_at_circuit: bool = True
    before_start: Callable[[], None] = always

    @property
    def provider(self) -> str:
        """Name of the provider that is to be called."""
        return self.agent.provider

    @property
    def model(self) -> str:
        """Name of the model that is to be called."""
        return self.agent.model

    def wait(self) -> None:
        """Say that the attempt only waits: nothing is lost by stopping it."""
        self.job.lease.enter(Phase.WAITING)

    def begin(self) -> None:
        """Say that the request goes out now."""
        self.job.lease.enter(Phase.CALLING)
        self.job.clock.begin_call()


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOutcome:
    """What a call has brought.

    Attributes:
        response: The model's answer.
        call_id: The call, as the ledger names it.
        option: Which of the agent's options has answered.
    """

    response: LLMResponse
    call_id: UUID
    option: int = 0


class CallRing(Protocol):
    """Makes one call: the provider's ring, or one around it."""

    async def call(self, request: CallRequest) -> CallOutcome:
        """Make one call; whatever has become of it is noted with ``request.job.settling``.

        Args:
            request: What is asked for.

        Returns:
            The answer.

        Raises:
            AgentError: By cause; nothing was sent for UnknownModel and BudgetExceeded.
            LeaseGone: If the attempt may not go on.
            LongWait: If it has to wait long, and another attempt can go on from here.
        """
        ...


def surround(provider: CallRing, rings: Mapping[str, Callable[[CallRing], CallRing]]) -> CallRing:
    """Put rings around the provider's, in their order.

    Args:
        provider: The innermost ring.
        rings: What makes each ring from the one inside it, by its name in ``INSIDE_OUT``; a ring
            that is not named is left out.

    Returns:
        The outermost ring.
    """
    assert rings.keys() <= set(INSIDE_OUT), "a ring needs its place in INSIDE_OUT"
    outermost = provider
    for name in INSIDE_OUT:
        if name in rings:
            outermost = rings[name](outermost)
    return outermost

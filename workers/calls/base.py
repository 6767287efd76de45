"""The rings around a call to a provider: their order, their input and their output.

A ring is an object with one method, ``call``. The method does the ring's own part of a call, and
asks the next inner ring for the rest. The request goes inward, and the outcome or an error comes
back::

    LLMAgent (workers.agents.llm)
       | CallRequest             ^ CallOutcome, or an error
       v                         |
    fallback   asks another model if the first model fails
    cache      uses the answer to an earlier, equal request
    circuit    waits, without permit and money, while a model fails for all agents
    provider   takes a permit and a hold, sends the request, notes the cost

The order has these reasons. The fallback is the outermost ring, because each model has its own
cached answers, circuit, limits and money. The cache is outside the circuit, because a known answer
needs no provider. The circuit is outside the provider's ring, because a call that waits for its
circuit must hold neither permit nor money.

A ring never changes the request that it receives. Instead, the ring makes a new request for the
next inner ring. A ring learns about the inner call only from the outcome or the error. The attempt
(``Job``) keeps the facts that belong to several calls: the unwritten calls, the time spent and the
waits. Rings change these facts only through methods. The design follows Temporal's interceptors
(``temporalio/worker/_interceptor.py``).

``workers.composition`` makes the rings. A new ring must be added to ``INSIDE_OUT`` and to
``workers.composition``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from app.domain.agent import Agent
from app.llm.base import LLMResponse, Message
from workers.inflight import Phase
from workers.jobs import Job

#: The order of the rings around the provider's ring, from the inside out.
INSIDE_OUT = ("circuit", "cache", "fallback")


def always() -> None:
    """Let a call start; the default of ``CallRequest.before_start``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallRequest:
    """One call that an attempt wants to make.

    Attributes:
        job: The attempt.
        agent: The attempt's agent, or a copy of this agent with the ``llm_config`` of a fallback.
        messages: The conversation so far.
        tools: Tools that the model may ask for.
        option: Index of the option that is called first. Index 0 is the agent's own model, and
            index 1 is the agent's first fallback.
        waits_at_circuit: Whether the call may wait at an open circuit. If not, CircuitOpen is
            raised.
        before_start: A function that is called before the hold is placed. The function raises an
            error if the call must not start any more.
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
        """Note that the attempt waits; a stop would lose nothing now."""
        self.job.lease.enter(Phase.WAITING)

    def begin(self) -> None:
        """Note that the request is sent now."""
        self.job.lease.enter(Phase.CALLING)
        self.job.clock.begin_call()


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOutcome:
    """The result of a call.

    Attributes:
        response: The model's answer.
        call_id: Id of the call in the ledger.
        option: Index of the option that has answered; see ``CallRequest``.
    """

    response: LLMResponse
    call_id: UUID
    option: int = 0


class CallRing(Protocol):
    """Makes one call. Every ring has this form, the provider's ring included.

    Example:
        class TimedRing:
            def __init__(self, inner: CallRing) -> None:
                self._inner = inner

            async def call(self, request: CallRequest) -> CallOutcome:
                started_s = time.monotonic()
                outcome = await self._inner.call(request)
                log.info("call", model=request.model, seconds=time.monotonic() - started_s)
                return outcome
    """

    async def call(self, request: CallRequest) -> CallOutcome:
        """Make one call, and note its cost in ``request.job.settling``, however the call ends.

        Args:
            request: The call.

        Returns:
            The answer.

        Raises:
            AgentError: If the call fails; the subclass names the cause. If the subclass is
                UnknownModel or BudgetExceeded, nothing was sent.
            LeaseGone: If the attempt must stop.
            LongWait: If the call has to wait long, and a later attempt can go on from here.
        """
        ...


def surround(provider: CallRing, rings: Mapping[str, Callable[[CallRing], CallRing]]) -> CallRing:
    """Put rings around the provider's ring, in the order of ``INSIDE_OUT``.

    Args:
        provider: The innermost ring.
        rings: One function for each ring, under the ring's name in ``INSIDE_OUT``. A ring's
            function gets the next inner ring and returns the ring. A ring without a function is
            left out.

    Returns:
        The outermost ring.

    Example:
        calls = surround(provider, {"circuit": partial(CircuitRing, breakers=b, history=h)})
    """
    assert rings.keys() <= set(INSIDE_OUT), "a ring needs its place in INSIDE_OUT"
    outermost = provider
    for name in INSIDE_OUT:
        if name in rings:
            outermost = rings[name](outermost)
    return outermost

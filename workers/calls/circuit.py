"""The ring of circuit breakers: while a model fails for all agents, calls to the model wait here.

A call that waits here has no permit and no hold.
"""

from dataclasses import replace
from uuid import UUID

from app.failures.breakers import CircuitBreakers, CircuitReopened, Ticket
from workers.calls.base import CallOutcome, CallRequest, CallRing
from workers.history import HistoryWriter

#: The largest number of `circuit_open` events that are remembered. Each pair of a run and a model
#: has one event.
MAX_NOTED = 4096


class CircuitRing:
    """Makes each call when the circuit of the call's model allows the call.

    Its weakness: agents wait until the model works again. One alternative is ``when_open: fail`` in
    the configuration. Another alternative is a fallback: if the agent's ``fallback_on`` contains
    ``CircuitOpen``, the fallback is asked at once.

    Args:
        inner: The next inner ring.
        breakers: The circuits.
        history: Adds an event to the runs' histories when a circuit has opened or has closed again.
    """

    def __init__(
        self, inner: CallRing, *, breakers: CircuitBreakers, history: HistoryWriter
    ) -> None:
        self._inner = inner
        self._breakers = breakers
        self._history = history
        self._noted: dict[tuple[UUID, str, str], None] = {}

    async def call(self, request: CallRequest) -> CallOutcome:
        """See ``CallRing``.

        Raises:
            CircuitOpen: If the circuit is open while the policy or the request forbids the wait.
            LongWait: If the circuit stays open for long, and a later attempt can go on from here.
        """
        while True:
            ticket = await self._admit(request)
            try:
                outcome = await self._inner.call(replace(request, before_start=ticket.check))
            except CircuitReopened:
                # The circuit has opened meanwhile, so settle the hold before the call waits.
                await request.job.settling.write()
            except BaseException as error:
                ticket.ended(error)
                raise
            else:
                ticket.ended(None)
                return outcome

    async def _admit(self, request: CallRequest) -> Ticket:
        job, provider, model = request.job, request.provider, request.model
        key = job.run.run_id, provider, model
        if self._breakers.is_open(provider, model):
            request.wait()
            if key not in self._noted:
                self._noted[key] = None
                if len(self._noted) > MAX_NOTED:
                    del self._noted[next(iter(self._noted))]
                self._note(request, "circuit_open")
        with job.waits.waiting("circuit", lambda: f"{provider}/{model} circuit"):
            ticket = await self._breakers.admit(
                provider, model, wait=request.waits_at_circuit, max_wait_s=job.clock.max_wait_s
            )
        if not ticket.token and key in self._noted:
            del self._noted[key]
            self._note(request, "circuit_closed")
        return ticket

    def _note(self, request: CallRequest, type_: str) -> None:
        facts = {
            "agent": request.agent.name,
            "provider": request.provider,
            "model": request.model,
        }
        self._history.note(request.job, type_, facts)

"""The ring of fallbacks: if one model cannot answer, another model is asked.

One attempt then makes several calls. Each call passes the inner rings for the call's model. Each
call has a cost entry of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.errors import AgentError, CircuitOpen, error_classes
from workers.calls.base import CallOutcome, CallRequest, CallRing
from workers.history import HistoryWriter
from workers.texts import storable

log = structlog.get_logger(__name__)


class FallbackRing:
    """Makes calls with the agent's own model, and with the agent's fallbacks if that model fails.

    If all these calls fail, the ring raises the first error after which a retry may help. If a
    retry may help after none of the errors, the ring raises the first error. So fallbacks never
    prevent a retry of the agent.

    Its weakness: all options share the agent's timeout, so a model that fails slowly leaves little
    time to the fallbacks. A conversation also stays with the option that has answered, even if the
    first model works again. The alternative is the agent's retry policy.

    Args:
        inner: The next inner ring.
        pricing: The prices. If an option has no price, no option is called.
        history: Notes fallbacks in the runs' histories.
        redact: Removes secrets from the error texts that are noted.

    Example:
        ring = FallbackRing(inner, pricing=pricing, history=history)
        outcome = await ring.call(CallRequest(job=job, agent=job.agent, messages=messages))
        outcome.option  # 0: the agent's own model, 1: its first fallback
    """

    def __init__(
        self,
        inner: CallRing,
        *,
        pricing: Pricing,
        history: HistoryWriter,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._inner = inner
        self._pricing = pricing
        self._history = history
        self._redact = redact

    async def call(self, request: CallRequest) -> CallOutcome:
        """See ``CallRing``.

        Raises:
            UnknownModel: If an option has no price; then no call is made.
        """
        agent, job = request.agent, request.job
        if not agent.fallbacks:
            return await self._inner.call(request)
        options = agent.options()
        for option in options:
            self._pricing.price_of(option.provider, option.model, option.llm_config)
        wanted = _classes(agent.fallback_on)
        waits = CircuitOpen not in wanted
        errors: list[AgentError] = []
        for place in range(request.option, len(options)):
            try:
                outcome = await self._inner.call(
                    replace(request, agent=options[place], waits_at_circuit=waits)
                )
                # A conversation goes on with the option that has answered.
                return replace(outcome, option=place)
            except wanted as error:
                errors.append(error)
            except AgentError as error:
                errors.append(error)
                break
            if place + 1 == len(options) or job.clock.left_s <= 0:
                break
            # Settle the failed call's hold, because the next call may need the money.
            await job.settling.write()
            self._note(request, options[place], options[place + 1], errors[-1])
        failure = next((error for error in errors if error.retriable), errors[0])
        if isinstance(failure, CircuitOpen) and not waits:
            # No option can answer. The policy decides whether the call fails or waits at the first
            # option's circuit.
            await job.settling.write()
            first = replace(request, agent=options[request.option], waits_at_circuit=True)
            return replace(await self._inner.call(first), option=request.option)
        raise failure

    def _note(
        self, request: CallRequest, failed: Agent, following: Agent, error: AgentError
    ) -> None:
        facts = {
            "agent": failed.name,
            "provider": failed.provider,
            "model": failed.model,
            "error": storable(self._redact(str(error))),
            "error_class": type(error).__name__,
            "next_provider": following.provider,
            "next_model": following.model,
        }
        log.info("fallback", run_id=str(request.job.run.run_id), **facts)
        self._history.note(request.job, "agent_fallback", facts)


def _classes(names: Sequence[str]) -> tuple[type[AgentError], ...]:
    return tuple(kind for kind in error_classes() if kind.__name__ in names)

"""``FailureHandler`` decides on all retries, for workers and for programs that use the handler.

The handler decides and counts; its caller carries out the decision. No other code repeats a call,
because the SDKs' own retries are off.
"""

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from app.concurrency.error_texts import message_of, traceback_of
from app.concurrency.user_code import TookTooLong, UserCodeFailed, call, result_of, within
from app.domain.agent import Agent, AgentResult
from app.domain.outcome import AgentCounts, failure_reason
from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import AgentError
from app.failures.classification import FailureClass, class_named, classify
from app.failures.decisions import Fail, Retry, decide

#: A function or coroutine function. It is called with an agent that has failed for good, and with
#: the agent's result.
OnFailure = Callable[[Agent, AgentResult], Any]
CALLBACK_TIMEOUT_S = 30.0
CALLBACKS_AT_ONCE = 8
#: The end of a longer message is not stored. It is cut after the secrets are hidden, because no
#: half of a secret may be stored.
MAX_ERROR_CHARS = 2000

log = structlog.get_logger(__name__)


class FailureHandler:
    """Decides whether a failed agent is tried again.

    Example:
        handler = FailureHandler(RetryPolicy(max_retries=1), on_failure=lambda agent, result: ...)
        if handler.handle_failure(agent, result):
            ...  # try the agent again

    A callback is called at most once and is not repeated. A program that must not miss a failure
    reads the history or the event stream instead.

    Args:
        default_policy: Retry policy of agents that have no policy of their own.
        on_failure: This callback is called once for every agent that fails for good. Errors of the
            callback are logged.
        redact: Removes secrets from an error message.
    """

    def __init__(
        self,
        default_policy: RetryPolicy | None = None,
        on_failure: OnFailure | None = None,
        *,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._redact = redact
        self._default_policy = default_policy or RetryPolicy()
        self._on_failure = on_failure
        self._telling: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(CALLBACKS_AT_ONCE)
        self._counts: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()

    def decide(
        self,
        agent: Agent,
        error: AgentError | FailureClass,
        *,
        retries: int,
        policy: RetryPolicy | None = None,
    ) -> Retry | Fail:
        """Decide on the next step after a failed attempt.

        Args:
            agent: The agent that failed.
            error: The agent's error; a provider's Retry-After can lengthen but never shorten the
                wait before the next attempt.
            retries: Number of retries so far.
            policy: Policy that replaces the agent's own policy and the default policy.
        """
        policy = policy or agent.policy(self._default_policy)
        decision = decide(error, retries=retries, policy=policy)
        kind = error if isinstance(error, FailureClass) else classify(error)
        self._classes[kind.name] += 1
        self._counts["failures"] += 1
        self._counts["retries" if isinstance(decision, Retry) else "final"] += 1
        return decision

    def text_of(self, error: Exception) -> str:
        """Return an error's message without secrets, for the history and for callers."""
        return self._redact(message_of(error))[:MAX_ERROR_CHARS] or type(error).__name__

    def handle_failure(
        self, agent: Agent, result: AgentResult, policy: RetryPolicy | None = None
    ) -> bool:
        """Decide whether an agent should be tried again; if not, call ``on_failure``.

        Args:
            agent: The agent that failed.
            result: The agent's result. The class of the error is ``metadata["error_class"]``. If
                ``metadata`` has no such entry, the class follows from the status.
            policy: Policy that replaces the agent's own policy and the default policy.

        Returns:
            True if the agent should be tried again. The value is always False for a result without
            a failure.
        """
        if not result.status.is_failure:
            return False
        decision = self.decide(agent, _class_of(result), retries=result.retry_count, policy=policy)
        if isinstance(decision, Retry):
            return True
        self._run_callback(agent, result)
        return False

    def should_fail_workflow(
        self, failed_agents: Sequence[Agent], total_agents: int, allow_partial: bool = True
    ) -> bool:
        """Decide by the scheduler's rule whether a run fails because of its failed agents.

        Args:
            failed_agents: The agents that failed for good.
            total_agents: Number of all agents of the workflow.
            allow_partial: Whether partial completion is allowed.
        """
        counts = AgentCounts(
            total=total_agents,
            failed=len(failed_agents),
            critical_failed=sum(1 for agent in failed_agents if agent.is_critical),
        )
        return failure_reason(counts, allow_partial_completion=allow_partial) is not None

    def tell(self, agent: Agent, result: AgentResult) -> None:
        """Call ``on_failure`` in the background; this method must run on the worker's loop."""
        if self._on_failure is not None:
            task = asyncio.create_task(
                self._tell(self._on_failure, agent, result), name="on_failure"
            )
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Wait for the callbacks that still run; each callback has a time limit."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=CALLBACK_TIMEOUT_S)

    def get_statistics(self) -> dict[str, Any]:
        """Return the counts of failures, retries, final failures, callbacks and error classes."""
        names = ("failures", "retries", "final", "callbacks", "callbacks_failed")
        return {name: self._counts[name] for name in names} | {"by_class": dict(self._classes)}

    async def _tell(self, callback: OnFailure, agent: Agent, result: AgentResult) -> None:
        async with self._turns:
            self._counts["callbacks"] += 1
            try:
                told = result_of(partial(callback, agent, result))
                await within(told, timeout_s=CALLBACK_TIMEOUT_S)
            except (UserCodeFailed, TookTooLong) as failed:
                self._callback_failed(agent, failed)

    def _run_callback(self, agent: Agent, result: AgentResult) -> None:
        """Call ``on_failure`` for a caller that is not a coroutine."""
        callback = self._on_failure
        if callback is None:
            return
        if inspect.iscoroutinefunction(callback):
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                asyncio.run(self._tell(callback, agent, result))
            else:
                self.tell(agent, result)
            return
        self._counts["callbacks"] += 1
        try:
            call(partial(callback, agent, result))
        except UserCodeFailed as failed:
            self._callback_failed(agent, failed)

    def _callback_failed(self, agent: Agent, failed: UserCodeFailed | TookTooLong) -> None:
        self._counts["callbacks_failed"] += 1
        # No method of a user's exception may run on a loop, so this text was made before.
        text = failed.traceback if isinstance(failed, UserCodeFailed) else None
        log.error("on_failure_failed", agent=agent.name, exception=text or traceback_of(failed))


def _class_of(result: AgentResult) -> FailureClass:
    known = class_named(result.metadata.get("error_class"))
    if known is not None:
        return known
    return FailureClass(
        name=str(result.metadata.get("error_class") or result.status),
        retriable=result.is_retriable() and "error_class" not in result.metadata,
        final=AgentStatus(result.status),
    )

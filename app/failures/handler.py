"""FailureHandler: the one owner of retries, for workers and for programs with the same question.

It decides and counts; its caller carries the decision out. Nothing else repeats a call: the
SDKs' own retries are off.
"""

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from app.domain.agent import Agent, AgentResult
from app.domain.outcome import AgentCounts, failure_reason
from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import AgentError
from app.failures.classification import FailureClass, class_named, classify
from app.failures.decisions import Fail, Retry, decide

#: Called with an agent that has failed for good, and its result; a function or a coroutine's.
OnFailure = Callable[[Agent, AgentResult], Any]
#: Starts a function that may block; returns what awaits its end.
InThread = Callable[[Callable[[], Any]], Any]
CALLBACK_TIMEOUT_S = 30.0
CALLBACKS_AT_ONCE = 8

log = structlog.get_logger(__name__)


class FailureHandler:
    """Decides what follows from failures.

    Example:
        handler = FailureHandler(RetryPolicy(max_retries=1), on_failure=lambda agent, result: ...)
        if handler.handle_failure(agent, result):
            ...  # try the agent again

    A callback is called at most once and is not repeated: one that must not be lost reads the
    history, or the event stream.

    Args:
        default_policy: Retry policy of agents without one of their own.
        on_failure: Called once for every agent that fails for good. What it raises is logged.
        in_thread: Runs a callback that is no coroutine; by default in the loop's executor.
        redact: Takes secrets out of the text of an error.
    """

    def __init__(
        self,
        default_policy: RetryPolicy | None = None,
        on_failure: OnFailure | None = None,
        *,
        in_thread: InThread | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._redact = redact
        self._default_policy = default_policy or RetryPolicy()
        self._on_failure = on_failure
        self._in_thread = in_thread or asyncio.to_thread
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
        """Decide what follows from a failed attempt.

        Args:
            agent: The agent that failed.
            error: Its error; a provider's Retry-After lengthens the wait and never shortens it.
            retries: Retries made so far.
            policy: Goes before the agent's own and the default one.
        """
        policy = policy or agent.policy(self._default_policy)
        decision = decide(error, retries=retries, policy=policy)
        kind = error if isinstance(error, FailureClass) else classify(error)
        self._classes[kind.name] += 1
        self._counts["failures"] += 1
        self._counts["retries" if isinstance(decision, Retry) else "final"] += 1
        return decision

    def text_of(self, error: Exception) -> str:
        """Return the text of an error for the history and for callers, without secrets."""
        return self._redact(str(error) or type(error).__name__)

    def handle_failure(
        self, agent: Agent, result: AgentResult, policy: RetryPolicy | None = None
    ) -> bool:
        """Decide whether an agent should be tried again; if not, ``on_failure`` is called.

        Args:
            agent: The agent that failed.
            result: Its result; ``metadata["error_class"]`` tells the class, else the status does.
            policy: Goes before the agent's own and the default one.

        Returns:
            True if it should be retried. Always False for a result that is no failure.
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
        """Decide whether a run fails because of its failed agents, as the scheduler does.

        Args:
            failed_agents: Those that failed for good.
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
        """Call ``on_failure`` in the background; called on the loop of a worker."""
        if self._on_failure is not None:
            task = asyncio.create_task(
                self._tell(self._on_failure, agent, result), name="on_failure"
            )
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Wait for the callbacks under way; each of them has a time limit."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=CALLBACK_TIMEOUT_S)

    def get_statistics(self) -> dict[str, Any]:
        """Return counts: ``failures``, ``retries``, ``final``, ``by_class`` and of callbacks."""
        names = ("failures", "retries", "final", "callbacks", "callbacks_failed")
        return {name: self._counts[name] for name in names} | {"by_class": dict(self._classes)}

    async def _tell(self, callback: OnFailure, agent: Agent, result: AgentResult) -> None:
        async with self._turns:
            self._counts["callbacks"] += 1
            try:
                async with asyncio.timeout(CALLBACK_TIMEOUT_S):
                    if inspect.iscoroutinefunction(callback):
                        await callback(agent, result)
                    else:
                        await self._in_thread(partial(callback, agent, result))
            except Exception:
                # User code: nothing that it raises may harm the agent or the worker.
                self._counts["callbacks_failed"] += 1
                log.exception("on_failure_failed", agent=agent.name)

    def _run_callback(self, agent: Agent, result: AgentResult) -> None:
        """Call ``on_failure`` for a caller that is not asynchronous."""
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
            callback(agent, result)
        except Exception:
            self._counts["callbacks_failed"] += 1
            log.exception("on_failure_failed", agent=agent.name)


def _class_of(result: AgentResult) -> FailureClass:
    known = class_named(result.metadata.get("error_class"))
    if known is not None:
        return known
    return FailureClass(
        name=str(result.metadata.get("error_class") or result.status),
        retriable=result.is_retriable() and "error_class" not in result.metadata,
        final=AgentStatus(result.status),
    )

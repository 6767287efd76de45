"""The circuit breakers of one process: the breakers admit calls, and learn the calls' ends.

While a circuit is closed, a call needs no exchange with Redis: failures are reported in the
background, and successes are reported only while failures are counted. While a circuit is open,
callers wait in the order of their arrival. Now and then one call, the probe, may pass an open
circuit. In the whole cluster, a circuit never has two probes at once.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Coroutine
from itertools import count
from secrets import token_hex
from typing import Any

import structlog

from app.domain.circuit import CircuitBreakerConfig
from app.errors import (
    AgentTimeout,
    CircuitOpen,
    ConnectionFailed,
    Overloaded,
    ProviderError,
    ServerFailure,
    ServiceUnavailable,
)
from app.failures.circuit import SLOTS, CircuitBackend, CircuitNews, Message, Verdict, View
from app.failures.local_circuit import LocalCircuit
from app.telemetry.logging import of_nobody

BAD_REQUEST, SERVER_ERROR = 400, 500
#: Seconds between two reports of successes, and between two renewals of probes.
TICK_S = 1.0
#: A waiting process asks again after at most this time, because a message may have been lost.
LOOK_AGAIN_S = 2.0
RETRY_S = 0.5

log = structlog.get_logger(__name__)


class CircuitReopened(Exception):
    """The circuit opened while a call waited for its permit; the call then waits anew."""


def judge(error: BaseException | None, *, slow_s: float) -> Verdict | None:
    """Judge a model by the end of a call; return None if the end says nothing about the model.

    Args:
        error: The error that the call raised; None if the call succeeded.
        slow_s: The agent's timeout may end a call. Such an end is a failure of the model only if
            the call has lasted at least this number of seconds.
    """
    if error is None:
        return "ok"
    if isinstance(error, AgentTimeout):
        return "bad" if error.called_s >= slow_s else None
    if not isinstance(error, ProviderError):
        return None
    refused = error.status is not None and BAD_REQUEST <= error.status < SERVER_ERROR
    if isinstance(error, ConnectionFailed | Overloaded | ServerFailure) and not refused:
        return "bad"
    # A refusal, even a 429, shows that the provider works. If the error has no status, the call did
    # not reach the provider.
    return None if error.status is None else "ok"


class Ticket:
    """The permission of a circuit for one call, valid from ``admit`` to ``ended``.

    Attributes:
        token: Id of the probe; empty if the call is not a probe.
    """

    def __init__(self, breakers: "CircuitBreakers", circuit: LocalCircuit, token: str) -> None:
        self._breakers = breakers
        self._circuit = circuit
        self.token = token

    def check(self) -> None:
        """Check, before the call starts, that the circuit is still closed.

        Raises:
            CircuitReopened: If the circuit has opened since ``admit``.
        """
        if self._circuit.opened and not self.token:
            raise CircuitReopened

    def ended(self, error: BaseException | None) -> None:
        """Report the end of the call; this must be done exactly once."""
        self._breakers.ended(self._circuit, self.token, error)


class CircuitBreakers:
    """All circuits of a process.

    Example:
        ticket = await breakers.admit("openai", "gpt-4o")
        try:
            ...  # the call
        except ProviderError as error:
            ticket.ended(error)
            raise
        ticket.ended(None)

    A circuit opens only after failures, so the calls in flight still fail when a model breaks down.
    If Redis is away, every circuit counts as closed, and only limits and retries hold back calls.

    Args:
        backend: Stores the circuits of the cluster.
        config: The policy of all circuits.
    """

    def __init__(self, backend: CircuitBackend, config: CircuitBreakerConfig) -> None:
        self._backend = backend
        self._config = config
        self._process = token_hex(6)
        self._probes = count(1)
        self._held: dict[str, LocalCircuit] = {}
        self._circuits: dict[str, LocalCircuit] = {}
        self._counts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[object]] = set()
        self._lost = False

    def is_open(self, provider: str, model: str) -> bool:
        """Return whether callers have to wait now, as far as this process knows."""
        circuit = self._circuits.get(f"{provider}/{model}")
        return circuit is not None and circuit.opened

    async def admit(
        self, provider: str, model: str, *, wait: bool = True, max_wait_s: float = math.inf
    ) -> Ticket:
        """Wait until a call to the model may be tried.

        Args:
            provider: Provider name.
            model: Model name.
            wait: Whether the call may wait. If the policy forbids the wait, the call never waits.
            max_wait_s: Largest number of seconds that the caller waits.

        Returns:
            The permission for the call; the caller must call the permission's ``ended``.

        Raises:
            CircuitOpen: If the circuit is open, and the policy or the caller forbids the wait.
            LongWait: If the circuit allows no call within ``max_wait_s`` seconds.
        """
        name = f"{provider}/{model}"
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = LocalCircuit(name)
        if circuit.known is None:
            circuit.known = asyncio.create_task(self._look(circuit), name="circuit_look")
        if not circuit.known.done():
            await asyncio.shield(circuit.known)
        if not circuit.opened:
            return Ticket(self, circuit, "")
        if not wait or self._config.when_open == "fail":
            return await self._probe_or_fail(circuit)
        self._counts["waited"] += 1
        if too_long := circuit.long_wait(max_wait_s):
            raise too_long
        return Ticket(self, circuit, await self._wait(circuit, max_wait_s))

    def ended(self, circuit: LocalCircuit, token: str, error: BaseException | None) -> None:
        """See ``Ticket.ended``."""
        verdict = judge(error, slow_s=self._config.slow_s)
        if token:
            self._conclude(circuit, token, verdict or "release")
        elif verdict == "ok":
            circuit.succeeded(self._config.window_s / SLOTS)
        elif verdict == "bad":
            self._counts["failures"] += 1
            circuit.bad += 1
            self._report_soon(circuit)

    def hear(self, news: CircuitNews) -> None:
        """Take over the news that another process has sent."""
        if not news.circuit:
            # Every known circuit is read again, because news may have been missed.
            for each in self._circuits.values():
                self._start(self._look(each))
        elif (circuit := self._circuits.get(news.circuit)) is not None:
            self._take(circuit, news)
            if news.state == "closed":
                circuit.counted_until_s = time.monotonic() + self._config.window_s

    async def run(self) -> None:
        """Until cancelled, report successes while failures are counted, and renew probes."""
        while True:
            await asyncio.sleep(TICK_S)
            for token, circuit in list(self._held.items()):
                self._start(self._exchange(circuit, token=token, verdict="renew"))
            now = time.monotonic()
            for circuit in self._circuits.values():
                if circuit.successes and now < circuit.counted_until_s and not circuit.opened:
                    self._report_soon(circuit)

    async def close(self) -> None:
        """Wait a moment for messages that are being sent; callers that wait are not woken."""
        for circuit in self._circuits.values():
            if circuit.keeper is not None:
                circuit.keeper.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RETRY_S)
        for task in self._tasks:
            task.cancel()

    def get_statistics(self) -> dict[str, Any]:
        """Return this process's counts, and the names of the open circuits known here."""
        names = ("failures", "opened", "closed", "probes", "waited", "refused")
        return {name: self._counts[name] for name in names} | {
            "open": sorted(name for name, circuit in self._circuits.items() if circuit.opened)
        }

    # ---- waiting ---------------------------------------------------------------------------

    async def _wait(self, circuit: LocalCircuit, max_wait_s: float) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        circuit.waiters.append(future)
        circuit.max_wait_s[future] = max_wait_s
        if circuit.keeper is None or circuit.keeper.done():
            circuit.keeper = asyncio.create_task(
                self._keep(circuit), name="circuit_keeper", context=of_nobody()
            )
        try:
            return await future
        except asyncio.CancelledError:
            granted = future.done() and not future.cancelled() and future.exception() is None
            if granted and (token := future.result()):  # empty if the circuit has closed
                self._conclude(circuit, token, "release")
            raise
        finally:
            del circuit.max_wait_s[future]
            with contextlib.suppress(ValueError):
                circuit.waiters.remove(future)

    async def _keep(self, circuit: LocalCircuit) -> None:
        """Ask for probes for the first waiter, while the circuit is open and a caller waits."""
        while circuit.opened and circuit.waiters:
            wait_s = circuit.ask_at_s - time.monotonic()
            if wait_s > 0:
                circuit.news.clear()
                try:
                    await asyncio.wait_for(circuit.news.wait(), min(wait_s, LOOK_AGAIN_S))
                except TimeoutError:
                    if wait_s > LOOK_AGAIN_S:
                        await self._look(circuit)
                continue
            if (token := await self._ask(circuit)) is not None:
                self._let_go(circuit, token)

    async def _probe_or_fail(self, circuit: LocalCircuit) -> Ticket:
        wait_s = circuit.ask_at_s - time.monotonic()
        token = await self._ask(circuit) if wait_s <= 0 else None
        if token is not None or not circuit.opened:
            return Ticket(self, circuit, token or "")
        self._counts["refused"] += 1
        raise CircuitOpen(
            f"{circuit.name} fails for everybody: its circuit breaker is open for another "
            f"{max(circuit.ask_at_s - time.monotonic(), 0.0):.1f} s; retry the run when the "
            "provider works again, or set circuit_breaker.when_open to wait"
        )

    async def _ask(self, circuit: LocalCircuit) -> str | None:
        """Ask for a probe; return the token of the probe if the probe was granted."""
        token = f"{self._process}:{next(self._probes)}"
        view = await self._exchange(circuit, token=token)
        if view is None:
            circuit.ask_at_s = time.monotonic() + RETRY_S
            return None
        if not view.granted:
            return None
        self._counts["probes"] += 1
        self._held[token] = circuit
        log.info("circuit_half_open", circuit=circuit.name)
        return token

    def _let_go(self, circuit: LocalCircuit, token: str) -> None:
        while circuit.waiters:
            future = circuit.waiters.popleft()
            if not future.done():
                future.set_result(token)
                return
        self._conclude(circuit, token, "release")

    def _conclude(self, circuit: LocalCircuit, token: str, verdict: Verdict) -> None:
        """Report the end of a probe; without the report, the probe's lease ends by itself."""
        self._held.pop(token, None)
        self._start(self._exchange(circuit, token=token, verdict=verdict))

    # ---- exchanges with the backend ---------------------------------------------------------

    def _take(self, circuit: LocalCircuit, known: View | CircuitNews) -> None:
        """Take over a state, unless a newer state is known already; news may overtake an answer."""
        if known.at < circuit.known_at:
            return
        circuit.known_at = known.at
        circuit.opened, circuit.probed = known.state != "closed", known.state == "half_open"
        circuit.ask_at_s = time.monotonic() + known.wait_s
        circuit.news.set()
        if not circuit.opened:
            while circuit.waiters:
                future = circuit.waiters.popleft()
                if not future.done():
                    future.set_result("")
        for future, max_wait_s in circuit.max_wait_s.items():
            if not future.done() and (too_long := circuit.long_wait(max_wait_s)):
                future.set_exception(too_long)

    async def _look(self, circuit: LocalCircuit) -> None:
        """Read a circuit; if the backend is away, the process keeps the state that it knows.

        A circuit that was never read counts as closed then, because limits still hold back calls.
        """
        try:
            view = await self._backend.exchange(circuit.name, None)
        except ServiceUnavailable as error:
            self._say_lost(error)
            return
        self._take(circuit, view)
        if view.bad:
            circuit.counted_until_s = time.monotonic() + self._config.window_s

    def _report_soon(self, circuit: LocalCircuit) -> None:
        if not circuit.reporting:
            circuit.reporting = True
            self._start(self._report(circuit))

    async def _report(self, circuit: LocalCircuit) -> None:
        """Report the counted calls; calls that end meanwhile go into the next message."""
        try:
            while circuit.bad or circuit.successes:
                bad, circuit.bad = circuit.bad, 0
                if bad:
                    circuit.counted_until_s = time.monotonic() + self._config.window_s
                await self._exchange(circuit, ok=circuit.take_successes(), bad=bad)
                if not circuit.bad:
                    return
        finally:
            circuit.reporting = False

    async def _exchange(self, circuit: LocalCircuit, **fields: Any) -> View | None:
        # Only a message that counts calls gets a number. If a message without counts had a number,
        # it could overtake a message that counts calls. The counts would then be ignored as a
        # repetition.
        number = next(circuit.numbers) if "bad" in fields else 0
        message = Message(process=self._process, number=number, **fields)
        try:
            view = await self._backend.exchange(circuit.name, message)
        except ServiceUnavailable as error:
            self._say_lost(error)
            return None
        if self._lost:
            self._lost = False
            log.info("circuits_available_again")
        if view.change:
            self._counts[view.change] += 1
            if view.change == "opened":
                log.warning("circuit_opened", circuit=circuit.name, next_try_in_s=view.wait_s)
            else:
                log.info("circuit_closed", circuit=circuit.name)
        if not (view.granted or fields.get("verdict") == "renew"):
            self._take(circuit, view)
        return view

    def _say_lost(self, error: ServiceUnavailable) -> None:
        if not self._lost:
            self._lost = True
            log.warning("circuits_unavailable", error=str(error), effect="failures are not counted")

    def _start(self, step: Coroutine[Any, Any, object]) -> None:
        task: asyncio.Task[object] = asyncio.create_task(step, name="circuit")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

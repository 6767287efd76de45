"""The messages to and from a circuit breaker, and the interface of the backend of the circuits.

While a circuit is ``closed``, calls start, and failures are counted in a sliding window. While a
circuit is ``open``, it allows no call before a certain time. While a circuit is ``half_open``, only
one call, the probe, runs. The result of the probe closes the circuit, or opens the circuit for a
longer time. A Lua script holds the circuits of a cluster. Tests compare the script with a model of
the script in Python.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

State = Literal["closed", "open", "half_open"]
#: The report on a probe: ``ok`` if the call succeeded, ``bad`` if the call failed, ``release`` if
#: the call says nothing about the model or was never made, ``renew`` if the call has not ended yet.
Verdict = Literal["ok", "bad", "release", "renew"]
SLOTS = 10


@dataclass(kw_only=True, slots=True)
class Message:
    """A message from a process to a circuit.

    Attributes:
        process: Unique name of the process.
        number: Number of this message among the process's messages that count calls; a repeated
            message is not counted again. The number is 0 if the message counts no calls.
        ok: Pairs of an age in seconds and the number of successes at that time.
        bad: Number of failures since the last message.
        token: Id of a probe; a message with a token and without a verdict asks for the probe.
        verdict: The report on the probe.
    """

    process: str
    number: int
    ok: list[tuple[float, int]] = field(default_factory=list)
    bad: int = 0
    token: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The state of a circuit that a process gets from the backend.

    Attributes:
        state: The circuit's state.
        wait_s: Seconds until a probe may be granted; 0 if the circuit is closed.
        granted: Whether the requested probe may start.
        change: The change that the message caused; empty if the message caused no change.
        opening: Number of times that the circuit has opened since it was last idle.
        ok: Number of successes in the window.
        bad: Number of failures in the window.
        at: Time by the backend's clock in microseconds; a process ignores a view that is older than
            its newest view.
    """

    state: State
    wait_s: float = 0.0
    granted: bool = False
    change: Literal["", "opened", "closed"] = ""
    opening: int = 0
    ok: int = 0
    bad: int = 0
    at: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitNews:
    """A message to all processes: a circuit opened, closed, may be probed, or counts failures.

    If ``circuit`` is empty, news may have been missed, and every circuit has to be read again.
    ``at`` has the same meaning as in ``View``.
    """

    circuit: str
    state: State = "closed"
    wait_s: float = 0.0
    at: int = 0


class CircuitBackend(Protocol):
    """Stores the circuits; every method may raise ``ServiceUnavailable``."""

    async def exchange(self, circuit: str, message: Message | None) -> View:
        """Apply a message, if there is one, and return the circuit's state."""

    async def names(self) -> list[str]:
        """Return the names of the circuits that have counted failures recently."""

    def listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        """Call ``on_news`` with all news until ``close`` is called."""

    async def close(self) -> None:
        """Stop listening."""

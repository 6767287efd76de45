"""The messages to and from a circuit breaker, and the interface of the backend that holds it.

``closed``: calls go, failures are counted in a sliding window. ``open``: none goes until a time.
``half_open``: one call, the probe, goes; its result closes the circuit or opens it for longer. The
Lua script that holds the circuits of a cluster is tested against a model of it in Python.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

State = Literal["closed", "open", "half_open"]
#: The end of a probe: it succeeded or failed, was never made, or is still under way.
Verdict = Literal["ok", "bad", "release", "renew"]
SLOTS = 10


@dataclass(kw_only=True, slots=True)
class Message:
    """A message from a process to a circuit.

    Attributes:
        process: Unique name of the process.
        number: Counts the process's messages with calls; a repeated one counts no calls again. 0
            for a message without any.
        ok: Successes: seconds ago, and how many.
        bad: Failures since the last message.
        token: Names a probe; without a verdict, permission for it is asked for.
        verdict: The end of the probe.
    """

    process: str
    number: int
    ok: list[tuple[float, int]] = field(default_factory=list)
    bad: int = 0
    token: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The state of a circuit, as a process sees it.

    Attributes:
        state: Its state.
        wait_s: Seconds until it is worth asking for a probe; 0 if it is closed.
        granted: Whether the probe that was asked for may go.
        change: The change that the message brought about.
        opening: How many times it has opened since it was last idle.
        ok: Successes in the window.
        bad: Failures in the window.
        at: Microseconds of the holder's clock: a view older than one already known is out of
            date, in whatever order the two arrive.
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
    """News for all processes: a circuit opened, closed, may be probed, or counts failures.

    ``circuit`` is empty when news may have been missed: then every circuit has to be read again.
    ``at`` is as in ``View``.
    """

    circuit: str
    state: State = "closed"
    wait_s: float = 0.0
    at: int = 0


class CircuitBackend(Protocol):
    """Holds the circuits; every method may raise ``ServiceUnavailable``."""

    async def exchange(self, circuit: str, message: Message | None) -> View:
        """Apply a message and return the circuit's state; without one only return it."""

    async def names(self) -> list[str]:
        """Return the circuits that have counted failures lately."""

    def listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        """Call back for news until ``close``."""

    async def close(self) -> None:
        """Stop listening."""

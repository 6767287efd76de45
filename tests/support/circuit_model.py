"""A circuit breaker as a pure state machine, and circuits in memory: the model of the Lua script.

``app/failures/circuit.lua`` follows the same rules; a test sends the same messages to the script
and to this model.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from app.domain.circuit import CircuitBreakerConfig
from app.failures.circuit import SLOTS, CircuitNews, Message, State, View

#: A process's last message number is remembered for so long; a repeated message counts once.
SEEN_S = 60.0
#: A probe whose process is silent for so long is lost, and another probe may go.
PROBE_LEASE_S = 15.0
MAX_DOUBLINGS = 20


@dataclass(kw_only=True)
class Circuit:
    """The state of one circuit; times are in seconds of the backend's clock.

    Attributes:
        slots: [successes, failures] by slot of the window.
        until: Time from which a probe may go; None while the circuit is closed.
        streak: Openings in a row without a success.
        openings: Number of all openings.
        holder: Token of the probe under way; empty if no probe is under way.
        holder_until: Time at which the probe under way counts as lost.
        told: Time of the last news to the processes that failures are counted.
        seen: Number and time of the last message, by process.
    """

    slots: dict[int, list[int]] = field(default_factory=dict)
    until: float | None = None
    streak: int = 0
    openings: int = 0
    holder: str = ""
    holder_until: float = 0.0
    told: float = 0.0
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def exchange(
        self, config: CircuitBreakerConfig, message: Message, now: float
    ) -> tuple[View, list[CircuitNews]]:
        """Apply a message.

        Returns:
            The circuit's new state, and the news for the other processes, without a circuit's name.
        """
        news: list[CircuitNews] = []
        self._forget(config, now)
        change: Literal["", "opened", "closed"] = ""
        if message.verdict is not None:
            change = self._judge(config, message, now, news)
        if self._is_new(message, now) and self.until is None:
            self._count(config, message, now)
            if message.bad and self._is_sustained(config):
                self._open(config, now, news)
                change = "opened"
            elif message.bad and now - self.told >= config.window_s / 2:
                self.told = now
                news.append(CircuitNews(circuit="", at=microseconds(now)))
        granted = message.verdict is None and self._grant(message.token, now)
        return self.view(config, now, granted=granted, change=change), news

    def view(
        self,
        config: CircuitBreakerConfig,
        now: float,
        *,
        granted: bool = False,
        change: Literal["", "opened", "closed"] = "",
    ) -> View:
        """Return the state of the circuit."""
        self._forget(config, now)
        wait_s = 0.0
        state: State = "closed"
        if self.until is not None:
            state = "half_open" if self.holder else "open"
            wait_s = max((self.holder_until if self.holder else self.until) - now, 0.0)
        return View(
            state=state,
            wait_s=wait_s,
            granted=granted,
            change=change,
            opening=self.openings,
            ok=sum(ok for ok, _ in self.slots.values()),
            bad=sum(bad for _, bad in self.slots.values()),
            at=microseconds(now),
        )

    def _forget(self, config: CircuitBreakerConfig, now: float) -> None:
        oldest = math.floor(now * SLOTS / config.window_s) - SLOTS
        self.slots = {index: slot for index, slot in self.slots.items() if index > oldest}
        self.seen = {name: seen for name, seen in self.seen.items() if seen[1] + SEEN_S > now}
        if self.holder and self.holder_until <= now:
            self.holder = ""

    def _is_new(self, message: Message, now: float) -> bool:
        last, _ = self.seen.get(message.process, (0, 0.0))
        if message.number <= last:
            return False
        self.seen[message.process] = message.number, now
        return True

    def _count(self, config: CircuitBreakerConfig, message: Message, now: float) -> None:
        for age_s, ok in message.ok:
            if age_s < config.window_s:
                index = math.floor((now - age_s) * SLOTS / config.window_s)
                self.slots.setdefault(index, [0, 0])[0] += ok
        if message.bad:
            index = math.floor(now * SLOTS / config.window_s)
            self.slots.setdefault(index, [0, 0])[1] += message.bad
        self._forget(config, now)

    def _is_sustained(self, config: CircuitBreakerConfig) -> bool:
        ok = sum(slot[0] for slot in self.slots.values())
        bad = sum(slot[1] for slot in self.slots.values())
        return bad >= config.min_failures and bad >= config.failure_share * (ok + bad)

    def _open(self, config: CircuitBreakerConfig, now: float, news: list[CircuitNews]) -> None:
        open_s = min(config.open_s * 2 ** min(self.streak, MAX_DOUBLINGS), config.max_open_s)
        self.until = now + open_s
        self.streak += 1
        self.openings += 1
        self.holder = ""
        self.slots = {}
        news.append(CircuitNews(circuit="", state="open", wait_s=open_s, at=microseconds(now)))

    def _judge(
        self,
        config: CircuitBreakerConfig,
        message: Message,
        now: float,
        news: list[CircuitNews],
    ) -> Literal["", "opened", "closed"]:
        if self.until is None or not message.token or message.token != self.holder:
            return ""
        match message.verdict:
            case "ok":
                self.until, self.streak, self.holder = None, 0, ""
                news.append(CircuitNews(circuit="", at=microseconds(now)))
                return "closed"
            case "bad":
                self._open(config, now, news)
                return "opened"
            case "release":
                self.holder = ""
                news.append(CircuitNews(circuit="", state="open", at=microseconds(now)))
            case _:
                self.holder_until = now + PROBE_LEASE_S
        return ""

    def _grant(self, token: str, now: float) -> bool:
        if not token or self.until is None or now < self.until:
            return False
        if self.holder not in ("", token):
            return False
        self.holder, self.holder_until = token, now + PROBE_LEASE_S
        return True


def microseconds(now: float) -> int:
    """Convert seconds of a clock to whole microseconds."""
    return math.floor(now * 1e6 + 0.5)


class MemoryCircuits:
    """Circuits in memory.

    Args:
        config: The policy of all circuits.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        config: CircuitBreakerConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._clock = clock
        self._listeners: list[Callable[[CircuitNews], None]] = []
        self._circuits: dict[str, Circuit] = defaultdict(Circuit)

    async def exchange(self, circuit: str, message: Message | None) -> View:
        """See ``CircuitBackend``."""
        if message is None:
            return self._circuits[circuit].view(self._config, self._clock())
        view, news = self._circuits[circuit].exchange(self._config, message, self._clock())
        for item in news:
            self.tell(replace(item, circuit=circuit))
        return view

    async def names(self) -> list[str]:
        """See ``CircuitBackend``."""
        return sorted(self._circuits)

    def listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        """See ``CircuitBackend``."""
        self._listeners.append(on_news)

    def tell(self, news: CircuitNews) -> None:
        """Pass on news to all listeners."""
        for on_news in list(self._listeners):
            on_news(news)

    async def close(self) -> None:
        """See ``CircuitBackend``; nothing is open."""

    def flush(self) -> None:
        """Forget everything, as a flushed Redis does."""
        self._circuits.clear()

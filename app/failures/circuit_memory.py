"""Circuits within one process: the model behind the interface of the cluster's."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from app.domain.circuit import CircuitBreakerConfig
from app.failures.circuit import Circuit, CircuitNews, Message, View


class MemoryCircuits:
    """Circuits in memory, for tests and for programs of one process; a cluster needs Redis.

    Args:
        config: The policy of all circuits.
        clock: Seconds.
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
        """Exchange as ``CircuitBackend`` says."""
        if message is None:
            return self._circuits[circuit].view(self._config, self._clock())
        view, news = self._circuits[circuit].exchange(self._config, message, self._clock())
        for item in news:
            self.tell(replace(item, circuit=circuit))
        return view

    async def names(self) -> list[str]:
        """Return names as ``CircuitBackend`` says."""
        return sorted(self._circuits)

    def listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        """See ``CircuitBackend``."""
        self._listeners.append(on_news)

    def tell(self, news: CircuitNews) -> None:
        """Pass news on to all that listen."""
        for on_news in list(self._listeners):
            on_news(news)

    async def close(self) -> None:
        """See ``CircuitBackend``; nothing is open."""

    def flush(self) -> None:
        """Forget everything, as a flushed Redis does."""
        self._circuits.clear()

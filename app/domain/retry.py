"""Retry policies: pure decisions, separate from the worker that retries."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from app.domain.bounds import YEAR_S, Bounds, check_bounds
from app.errors import ConfigurationError

BOUNDS = {
    "max_retries": Bounds(high=1000, whole=True),
    "base_delay": Bounds(high=YEAR_S),
    "max_delay": Bounds(high=YEAR_S),
    "exponential_base": Bounds(low=1, high=1000),
}


class RetryStrategy(StrEnum):
    """The growth of the delay from retry to retry."""

    EXPONENTIAL_BACKOFF = "exponential_backoff"
    LINEAR_BACKOFF = "linear_backoff"
    CONSTANT_DELAY = "constant_delay"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The number of retries after a failed attempt, and the delay before each retry.

    Example:
        RetryPolicy(max_retries=5, strategy=RetryStrategy.LINEAR_BACKOFF, base_delay=2)

    A policy belongs to one agent, and does not know whether other agents fail for the same reason.
    If a model fails for all agents, the circuit breaker holds back calls (``app.domain.circuit``).

    Attributes:
        max_retries: Retries after the first attempt.
        strategy: Growth of the delay.
        base_delay: Delay in seconds that the strategy starts from.
        max_delay: Longest delay in seconds, before jitter.
        exponential_base: Factor by which the delay grows per retry in the exponential strategy.
        jitter: Whether the delay is multiplied by a random factor from [0.5, 1.0). If several
            agents fail at the same time, these agents then retry at different times.
    """

    max_retries: int = 3
    strategy: RetryStrategy = RetryStrategy.EXPONENTIAL_BACKOFF
    base_delay: float = 1.0
    max_delay: float = 60.0
    exponential_base: float = 2.0
    jitter: bool = True

    def __post_init__(self) -> None:
        check_bounds(vars(self), BOUNDS, of="the retry policy's ")
        if not isinstance(self.jitter, bool):
            raise ConfigurationError(
                f"the retry policy's jitter is {self.jitter!r}: give True or False"
            )
        if self.strategy not in list(RetryStrategy):
            raise ConfigurationError(
                f"the retry policy's strategy is {self.strategy!r}: give one of "
                f"{', '.join(RetryStrategy)}"
            )
        # In files and stored definitions the strategy is a string.
        object.__setattr__(self, "strategy", RetryStrategy(self.strategy))

    def delay_s(
        self,
        retry: int,
        *,
        retry_after_s: float | None = None,
        random_unit: Callable[[], float] = random.random,
    ) -> float:
        """Return the seconds to wait before the given retry.

        Args:
            retry: Number of the retry, from 1.
            retry_after_s: Seconds that the provider asked the client to wait; the delay is never
                shorter.
            random_unit: Source of randomness in [0, 1).

        Returns:
            The delay, which is ``base_delay * exponential_base ** (retry - 1)`` for the exponential
            strategy and ``base_delay * retry`` for the linear strategy. The delay is capped at
            ``max_delay``, and then multiplied by the jitter.
        """
        delay = min(self._unbounded_s(retry), self.max_delay)
        if self.jitter:
            delay *= 0.5 + random_unit() * 0.5
        return max(delay, retry_after_s or 0.0)

    def _unbounded_s(self, retry: int) -> float:
        match self.strategy:
            case RetryStrategy.IMMEDIATE:
                return 0.0
            case RetryStrategy.CONSTANT_DELAY:
                return self.base_delay
            case RetryStrategy.LINEAR_BACKOFF:
                return self.base_delay * retry
            case RetryStrategy.EXPONENTIAL_BACKOFF:
                try:
                    return self.base_delay * float(self.exponential_base) ** (retry - 1)
                except OverflowError:
                    return self.max_delay if self.base_delay else 0.0

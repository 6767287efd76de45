"""When a failed attempt is tried again: a pure decision, apart from the worker that retries."""

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
    """How the delay grows from retry to retry."""

    EXPONENTIAL_BACKOFF = "exponential_backoff"
    LINEAR_BACKOFF = "linear_backoff"
    CONSTANT_DELAY = "constant_delay"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and after which delay a failed attempt is tried again.

    Example:
        RetryPolicy(max_retries=5, strategy=RetryStrategy.LINEAR_BACKOFF, base_delay=2)

    A policy is one agent's: it does not know that others fail for the same reason. Where a model
    fails for all agents, the circuit breaker holds calls back (``app.domain.circuit``).

    Attributes:
        max_retries: Retries after the first attempt.
        strategy: How the delay grows.
        base_delay: Delay in seconds that the strategy starts from.
        max_delay: Longest delay in seconds, before jitter.
        exponential_base: Growth per retry of the exponential strategy.
        jitter: Whether the delay is multiplied by a random factor from [0.5, 1.0), so that agents
            that failed together do not come back together.
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
        # Texts arrive from files and stored definitions.
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
            retry_after_s: The wait that the provider asked for; it only lengthens the delay.
            random_unit: Source of randomness in [0, 1).

        Returns:
            ``base * exponential_base ** (retry - 1)`` for the exponential strategy,
            ``base * retry`` for the linear one, capped at ``max_delay``, times the jitter.
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

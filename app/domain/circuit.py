"""The policy of circuit breakers, which hold back calls to a model that fails for all agents."""

from dataclasses import dataclass
from typing import Literal, get_args

from app.domain.bounds import Bounds, check_bounds
from app.errors import ConfigurationError

WhenOpen = Literal["wait", "fail"]
SECONDS = Bounds(high=86_400, positive=True)
BOUNDS = {
    "window_s": SECONDS,
    "min_failures": Bounds(low=1, high=1_000_000, whole=True),
    "failure_share": Bounds(high=1, positive=True),
    "open_s": SECONDS,
    "max_open_s": SECONDS,
    "slow_s": Bounds(high=86_400),
}


@dataclass(frozen=True, kw_only=True)
class CircuitBreakerConfig:
    """The settings of circuit breakers; the cluster has one breaker per model of a provider.

    Example:
        CircuitBreakerConfig(min_failures=10, when_open="fail")

    Attributes:
        enabled: Whether circuit breakers are used; if not, only retries and limits hold back calls.
        window_s: Seconds over which calls are counted.
        min_failures: Smallest number of failures within the window that can open a circuit.
        failure_share: Smallest share of failed calls, among all calls of the window, that can open
            a circuit. A circuit opens only if both this share and ``min_failures`` are reached.
        open_s: Seconds for which a circuit is open before one call tries the model. Whenever this
            call fails, the time doubles.
        max_open_s: Longest time, in seconds, for which a circuit is open before one call tries the
            model.
        slow_s: Seconds that a call must have lasted so that the agent's own timeout counts as a
            failure of the model.
        when_open: The behaviour of agents while a circuit is open: with ``wait``, the agents wait;
            with ``fail``, the agents fail immediately with CircuitOpen.
    """

    enabled: bool = True
    window_s: float = 30.0
    min_failures: int = 20
    failure_share: float = 0.5
    open_s: float = 5.0
    max_open_s: float = 60.0
    slow_s: float = 30.0
    when_open: WhenOpen = "wait"

    def __post_init__(self) -> None:
        check_bounds(vars(self), BOUNDS, of="circuit_breaker ")
        if not isinstance(self.enabled, bool):
            raise ConfigurationError(
                f"circuit_breaker enabled is {self.enabled!r}: give true or false"
            )
        if self.when_open not in get_args(WhenOpen):
            raise ConfigurationError(
                f"circuit_breaker when_open is {self.when_open!r}: give 'wait' or 'fail'"
            )
        if self.max_open_s < self.open_s:
            raise ConfigurationError(
                f"circuit_breaker max_open_s is {self.max_open_s:g}, less than open_s "
                f"({self.open_s:g})"
            )

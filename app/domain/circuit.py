"""The policy of circuit breakers: when calls to a model that fails cluster-wide are held back."""

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
    """The circuit breakers, one for each model of a provider, shared by the whole cluster.

    Example:
        CircuitBreakerConfig(min_failures=10, when_open="fail")

    Attributes:
        enabled: Whether there are any; without them only retries and limits hold calls back.
        window_s: Seconds over which calls are counted.
        min_failures: Failures within the window below which a circuit stays closed.
        failure_share: Share of the window's calls that must have failed, too.
        open_s: Seconds a circuit is open before one call tries it; doubled each time it fails.
        max_open_s: Longest such time.
        slow_s: An agent's own timeout counts as a failure of the model only if the call had been
            out for so many seconds.
        when_open: The agents' behaviour meanwhile: ``wait``, or ``fail`` at once with CircuitOpen.
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

"""Policies that operators or workflows' authors set in advance: limits, prices, monitoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

from app.domain.bounds import YEAR_S, Bounds, check_bounds
from app.domain.retry import RetryPolicy
from app.domain.suggestions import listed, shortened
from app.domain.usage import SERVED
from app.errors import ConfigurationError

Enforcement = Literal["bucket", "window"]
LIMIT = Bounds(low=1, high=10**12, whole=True, optional=True)
PRICE_OR_NONE = Bounds(high=1000, optional=True)
PRICES = ("input", "output")
CACHE_PRICES = ("cached_input", "cache_write", "cache_write_1h")
OTHER_PRICES = ("reasoning", "citation")
#: Fees in dollars per 1,000 uses.
FEES = ("requests", "web_searches")
#: The fee for an hour of a container in which programs of the model run, in dollars.
CONTAINER_HOURS = "container_hours"
#: Bounds of the work that a model does without being asked; a bound is in uses or tokens per call.
MOST = ("max_citation_tokens", "max_web_searches")
#: The key with the factors of service tiers, speeds and regions.
FACTORS = "factors"
FACTOR = Bounds(high=1000)
#: A price as it is in the configuration: rates, fees, bounds, and factors by fact and value.
OwnPrices = Mapping[str, float | Mapping[str, Mapping[str, float]]]
#: A price that may have the key ``from``.
DatedPrices = Mapping[str, float | str | Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, kw_only=True)
class RateLimitConfig:
    """Limits of one bucket: one account and one group of models. None means unlimited.

    Example:
        RateLimitConfig(requests_per_minute=500, tokens_per_minute=200_000, burst=20)

    Attributes:
        requests_per_minute: Largest number of requests per minute.
        requests_per_hour: Largest number of requests per hour.
        requests_per_day: Largest number of requests per day.
        tokens_per_minute: Input and output tokens in total, per minute.
        input_tokens_per_minute: Input tokens per minute, if the provider counts them separately.
        output_tokens_per_minute: Output tokens per minute, if the provider counts them separately.
        concurrent_requests: Requests in flight at the same time in the whole cluster.
        burst: Requests that may start together after an idle time; this number is the capacity of
            the minute tier. With 1, the requests are spaced evenly. None means the common default
            of providers, which is a sixtieth of the requests per minute, but at least 1.
        enforcement: ``bucket`` (continuous refill) or ``window`` (never more than
            ``requests_per_minute`` in any sliding minute).
    """

    requests_per_minute: int | None = 60
    requests_per_hour: int | None = 3000
    requests_per_day: int | None = 50_000
    tokens_per_minute: int | None = 100_000
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    concurrent_requests: int | None = 10
    burst: int | None = None
    enforcement: Enforcement = "bucket"

    def __post_init__(self) -> None:
        limits = {name: LIMIT for name in vars(self) if name != "enforcement"}
        check_bounds(vars(self), limits, of="rate limit ")
        if self.enforcement not in get_args(Enforcement):
            raise ConfigurationError(
                f"rate limit enforcement is {self.enforcement!r}: give 'bucket' or 'window'"
            )


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """The operator's own prices, which take precedence over the built-in table.

    Example:
        CostConfig(model_costs={"our-model": {"input": 0.001, "output": 0.002}})

    Attributes:
        model_costs: Model name -> {"input": ..., "output": ...} in dollars per 1,000 tokens. The
            prices ``cached_input``, ``cache_write``, ``cache_write_1h``, ``reasoning`` and
            ``citation`` are optional. Further optional keys are the fees ``requests`` and
            ``web_searches`` in dollars per 1,000 uses, the fee ``container_hours`` in dollars per
            hour, ``max_web_searches`` and
            ``max_citation_tokens`` per call, and ``factors``.
        model_prices: Model name -> list of prices with the same keys, in dollars per million
            tokens. The key ``from`` is the date or time from which a price applies (ISO 8601, UTC
            if there is no zone). One price may have no ``from``; this price applies before all
            other prices. A model may be in only one of the two tables.
        default_input_cost: Price of input tokens for models that are in no table; None means that
            these models are refused.
        default_output_cost: Price of output tokens for models that are in no table; None means that
            these models are refused.
    """

    model_costs: Mapping[str, OwnPrices] = field(default_factory=dict)
    model_prices: Mapping[str, Sequence[DatedPrices]] = field(default_factory=dict)
    default_input_cost: float | None = None
    default_output_cost: float | None = None

    def __post_init__(self) -> None:
        defaults = dict.fromkeys(("default_input_cost", "default_output_cost"), PRICE_OR_NONE)
        check_bounds(vars(self), defaults)
        for model, prices in self.model_costs.items():
            _check_prices(f"model_costs of {model!r}", prices, "dollars per 1,000 tokens")
        for model, dated in self.model_prices.items():
            if model in self.model_costs:
                raise ConfigurationError(
                    f"model_prices and model_costs both have {model!r}: keep one of them"
                )
            _check_dated(model, dated)


def factors_of(prices: DatedPrices) -> Mapping[str, Mapping[str, float]]:
    """Return the factors of a price, by fact (``service_tier``, ...) and value; often empty."""
    found = prices.get(FACTORS) or {}
    return found if isinstance(found, Mapping) else {}


def starts_at(prices: DatedPrices) -> datetime | None:
    """Return the time from which a price of ``model_prices`` applies; None if ``from`` is missing.

    Raises:
        ValueError: If ``from`` is not a date or time.
    """
    if (given := prices.get("from")) is None:
        return None
    start = datetime.fromisoformat(str(given))
    return start if start.tzinfo else start.replace(tzinfo=UTC)


def _check_dated(model: str, dated: Sequence[DatedPrices]) -> None:
    starts = set()
    for prices in dated:
        try:
            start = starts_at(prices)
        except ValueError as error:
            raise ConfigurationError(
                f"model_prices of {model!r}: from is {prices['from']!r}: give a date such as "
                "2026-07-01, or a time such as 2026-07-01T12:00:00Z"
            ) from error
        if start in starts:
            since = "without a date" if start is None else f"from {prices['from']!r} on"
            raise ConfigurationError(f"model_prices of {model!r} has two prices {since}")
        starts.add(start)
        rates = {name: rate for name, rate in prices.items() if name != "from"}
        _check_prices(f"model_prices of {model!r}", rates, "dollars per million tokens", 1_000_000)


def _check_prices(place: str, prices: DatedPrices, unit: str, high: float = 1000) -> None:
    optional = (*CACHE_PRICES, *OTHER_PRICES)
    bounds = (
        dict.fromkeys((*PRICES, *optional), Bounds(high=high))
        | dict.fromkeys(FEES, Bounds(high=1_000_000))
        | {CONTAINER_HOURS: Bounds(high=1000)}
        | dict.fromkeys(MOST, Bounds(high=10**9))
    )
    if not set(PRICES) <= prices.keys() <= {*bounds, FACTORS}:
        raise ConfigurationError(
            f"{place} has {listed(prices)}: give 'input' and 'output', and optionally "
            f"{listed(optional)}, in {unit}, {listed(FEES)} in dollars per 1,000 uses, "
            f"{CONTAINER_HOURS!r} in dollars per hour, {listed((*MOST, FACTORS))}"
        )
    check_bounds(prices, {name: bounds[name] for name in prices if name in bounds}, of=f"{place}: ")
    if prices.get("citation") and "max_citation_tokens" not in prices:
        raise ConfigurationError(
            f"{place} has 'citation' without 'max_citation_tokens': give the most citation tokens "
            "that a call may have, because holds need a bound"
        )
    _check_factors(place, prices)


def _check_factors(place: str, prices: DatedPrices) -> None:
    given = prices.get(FACTORS, {})
    if not isinstance(given, Mapping) or not given.keys() <= set(SERVED):
        raise ConfigurationError(
            f"{place}: factors is {shortened(given)}: give factors under {listed(SERVED)}, such as "
            "{service_tier: {priority: 2}}"
        )
    for fact, by_value in given.items():
        if not isinstance(by_value, Mapping):
            raise ConfigurationError(
                f"{place}: factors.{fact} is {shortened(by_value)}: give a factor for each value"
            )
        check_bounds(by_value, dict.fromkeys(by_value, FACTOR), of=f"{place}: factors.{fact}: ")


LAST_PORT = 65_535
MONITOR_BOUNDS = {
    "stream_length": Bounds(low=1, high=10_000_000, whole=True),
    "metrics_interval": Bounds(high=YEAR_S, positive=True),
}


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """The settings of metrics, logs and the event stream.

    Attributes:
        enable_metrics: Whether workers collect metrics and whether a Monitor stores events.
        enable_logging: Whether a Monitor logs events and metrics.
        metrics_interval: Seconds between two lines of metrics that a Monitor logs.
        metrics_host: Address on which workers serve their metrics.
        metrics_port: First port for the metrics; each worker takes the next free port. None means
            that workers do not serve metrics.
        allowed_hosts: Names under which the metrics may be asked for, besides addresses, names
            without a dot and names with a private end such as ``.internal``.
        stream_events: Whether events are added to the Redis stream, for services that read the
            stream.
        stream_length: Approximate number of the newest events that the stream keeps.
        flower_payloads: Whether Flower shows prompts, outputs and error messages.
    """

    enable_metrics: bool = True
    enable_logging: bool = True
    metrics_interval: float = 60.0
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    stream_events: bool = True
    stream_length: int = 10_000
    flower_payloads: bool = False

    def __post_init__(self) -> None:
        if self.metrics_port is not None and not 1 <= self.metrics_port <= LAST_PORT:
            raise ConfigurationError(
                f"metrics_port is {self.metrics_port!r}: use a port from 1 to {LAST_PORT}, or none"
            )
        if wrong := [each for each in self.allowed_hosts if not isinstance(each, str)]:
            raise ConfigurationError(f"allowed_hosts has {wrong[0]!r}: give names of hosts")
        check_bounds(vars(self), MONITOR_BOUNDS)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Configuration of an OrchestrationEngine; None means the value that the cluster has stored.

    Example:
        EngineConfig(rate_limit_config=RateLimitConfig(requests_per_minute=500))

    Attributes:
        rate_limit_config: Limits of the default provider.
        cost_config: Prices.
        monitor_config: Metrics, logs and the event stream.
        default_retry_policy: Retry policy of agents that have no retry policy of their own.
        max_concurrent_workflows: Largest number of runs that are under way at the same time;
            further runs stay pending.
    """

    rate_limit_config: RateLimitConfig | None = None
    cost_config: CostConfig = field(default_factory=CostConfig)
    monitor_config: MonitorConfig = field(default_factory=MonitorConfig)
    default_retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    max_concurrent_workflows: int = 50

    def __post_init__(self) -> None:
        check_bounds(vars(self), {"max_concurrent_workflows": Bounds(low=1, whole=True)})

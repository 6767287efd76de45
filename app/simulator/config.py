"""The simulator's configuration, in JSON or short strings. The values may change at run time."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.simulator.faults import Fault, FaultRule
from app.simulator.limits import RateLimit

DEFAULT_MODELS = (
    "openai:gpt-*",
    "openai:chatgpt-*",
    "openai:o[134]*",
    "openai:sim-*",
    "anthropic:claude-*",
    "anthropic:sim-*",
)

_SHORT_NAMES = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "itpm": "input_tokens_per_minute",
    "otpm": "output_tokens_per_minute",
    "prompt": "prompt_contains",
    "retry_after": "retry_after_s",
    "delay": "delay_s",
}
_FAULT_FIELDS = frozenset(field.name for field in dataclasses.fields(Fault))


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatorConfig:
    """All settings of the simulator's behaviour.

    Attributes:
        latency_s: seconds from a request's arrival to the end of a successful answer.
        jitter_s: largest number of additional seconds. The actual number is random; every number
            from 0 to the largest number is equally likely.
        time_to_first_token_s: seconds until the first piece of a stream; the rest of the latency is
            spread over the other pieces.
        output_tokens: size of every text reply; None keeps the natural length of the text.
        signed: whether a text reply begins with the request's id, so that no two replies are equal.
        cached_share: share of every prompt that counts as read from the prompt cache, 0 to 1.
        seed: seed of the jitter and of random faults.
        models: the models that exist, each as `provider:pattern`; a request for another model gets
            status 404.
        invalid_keys: API keys that are refused with status 401.
        limits: rate limits; the first limit that matches a model applies to the model.
        faults: fault rules; if several rules apply to a request, the first rule decides.
        ledger_size: number of records that are kept in memory.

    Example:
        limit = RateLimit(provider="openai", requests_per_minute=60)
        SimulatorConfig(latency_s=0.2, limits=(limit,))
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    time_to_first_token_s: float = 0.0
    output_tokens: int | None = None
    signed: bool = False
    cached_share: float = 0.0
    seed: int = 0
    models: tuple[str, ...] = DEFAULT_MODELS
    invalid_keys: frozenset[str] = frozenset()
    limits: tuple[RateLimit, ...] = ()
    faults: tuple[FaultRule, ...] = ()
    ledger_size: int = 200_000

    def __post_init__(self) -> None:
        for name in ("latency_s", "jitter_s", "time_to_first_token_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it cannot be negative")
        if not 0 <= self.cached_share <= 1:
            raise ValueError(f"cached_share is {self.cached_share!r}: use 0 to 1")
        if self.output_tokens is not None and self.output_tokens < 1:
            raise ValueError(f"output_tokens is {self.output_tokens!r}: use 1 or more, or None")


def config_with(base: SimulatorConfig, changes: Mapping[str, Any]) -> SimulatorConfig:
    """Apply changes in JSON form, such as `{"latency_s": 0.2, "limits": [{...}]}`.

    A list in the changes replaces the old list as a whole.

    Raises:
        ValueError: If a name is unknown, or a value is out of range.
    """
    try:
        values = {
            name: _READERS[name](value) if name in _READERS else value
            for name, value in changes.items()
        }
        return dataclasses.replace(base, **values)
    except TypeError as error:
        raise ValueError(f"simulator configuration {dict(changes)!r}: {error}") from error


def config_as_json(config: SimulatorConfig) -> dict[str, Any]:
    """Return the configuration in the form that `config_with` reads.

    Instead of the invalid keys, the result has the number of these keys.
    """
    values = dataclasses.asdict(config)
    return values | {
        "faults": [{**rule.pop("fault"), **rule} for rule in values["faults"]],
        "invalid_keys": len(config.invalid_keys),
    }


def fault_rule(values: Mapping[str, Any]) -> FaultRule:
    """Make a rule from one flat object, such as `{"kind": "status", "status": 503, "rate": 0.1}`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a name is unknown.
    """
    values = _long(values)
    fault = {"kind": "status"} | {key: values[key] for key in values if key in _FAULT_FIELDS}
    rest = {key: values[key] for key in values if key not in _FAULT_FIELDS}
    return FaultRule(fault=Fault(**fault), **rest)


def options_in(text: str) -> dict[str, Any]:
    """Read options such as `provider=openai,rpm=60,burst=1`; numeric values become numbers.

    Raises:
        ValueError: If a part does not have the form `key=value`.
    """
    options: dict[str, Any] = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"{part!r} in {text!r}: write key=value, separated by commas")
        options[key.strip()] = _number_or_text(value.strip())
    return options


def _long(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_SHORT_NAMES.get(key, key): value for key, value in values.items()}


#: Functions that convert the JSON values of some fields, by name of the field.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "limits": lambda items: tuple(RateLimit(**_long(item)) for item in items),
    "faults": lambda items: tuple(fault_rule(item) for item in items),
    "models": tuple,
    "invalid_keys": frozenset,
}


def _number_or_text(value: str) -> Any:
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return value

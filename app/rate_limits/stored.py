"""The limits in force: for each key, an operator's stored limit comes before the configuration.

This module reads no database and no file. Workers, the command line and the engine use the same
table to find the bucket of a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import structlog

from app.configuration.sections import (
    DEFAULT_BUCKET,
    TOKEN_COUNT,
    UNLIMITED,
    ProviderLimits,
)
from app.domain.agent import PROVIDERS
from app.domain.plain_text import find_name_problem
from app.domain.policies import RateLimitConfig
from app.domain.suggestions import did_you_mean, listed
from app.errors import ConfigurationError
from app.storage.limits import StoredBlock

KEYS = tuple(field.name for field in fields(RateLimitConfig))
UNLIMITED_WORDS = ("none", "null", "unlimited")

#: ``configuration`` is the YAML file, ``.env`` or the environment.
Source = Literal["stored", "configuration", "built-in"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitValue:
    """One limit in force.

    Attributes:
        value: The limit; None means unlimited.
        source: The place where the limit is set.
        inherited: Whether the limit comes from the provider's ``default``.
    """

    value: Any
    source: Source
    inherited: bool = False


@dataclass(frozen=True, kw_only=True)
class LimitTable:
    """The limits of all providers, including stored values.

    Attributes:
        providers: Limits by provider.
        values: The same limits with their sources, by bucket name and key.
    """

    providers: Mapping[str, ProviderLimits]
    values: Mapping[str, Mapping[str, LimitValue]]

    def resolve(self, provider: str, model: str) -> tuple[str, RateLimitConfig]:
        """Return the bucket of a model's calls, such as ``openai/default``, with the limits."""
        block, limits = self.providers.get(provider, ProviderLimits()).bucket_of(model)
        return f"{provider}/{block}", limits


def limit_table(
    configured: Mapping[str, ProviderLimits],
    stored: Sequence[StoredBlock],
    all_providers: Sequence[str] = PROVIDERS,
) -> LimitTable:
    """Merge the configuration and the stored limits of every provider.

    If a stored model is missing in the configuration, the model gets a bucket of its own. If a
    model's block does not name a limit, the model has the limit of ``default``, including stored
    values. In the block for counts of prompts, a limit that is not named is unlimited. A stored
    block that this version does not understand is ignored and logged.
    """
    values: dict[str, dict[str, LimitValue]] = {}
    providers: dict[str, ProviderLimits] = {}
    for provider in all_providers:
        given = configured.get(provider, ProviderLimits())
        kept = {
            block.model: block.limits
            for block in stored
            if block.provider == provider and _is_understood(block)
        }
        default = _default_values(given, kept.get(DEFAULT_BUCKET, {}))
        values[f"{provider}/{DEFAULT_BUCKET}"] = default
        models = {}
        for model in dict.fromkeys((*given.models, *kept)):
            if model != DEFAULT_BUCKET:
                block = _model_values(given, model, kept.get(model, {}), default)
                values[f"{provider}/{model}"] = block
                models[model] = _config(block)
        providers[provider] = ProviderLimits(default=_config(default), models=models)
    return LimitTable(providers=providers, values=values)


def read_assignments(words: Sequence[str]) -> dict[str, Any]:
    """Read limits that a user has typed: ``requests_per_minute=1200``, ``tokens_per_minute=none``.

    This function does not check the values; ``check_block`` does.

    Raises:
        ConfigurationError: If a word is not an assignment.
    """
    limits: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator:
            raise ConfigurationError(f"{word!r} sets nothing: write requests_per_minute=600")
        limits[key] = _value(text.strip())
    return limits


def check_block(
    provider: str,
    model: str,
    limits: Mapping[str, Any],
    all_providers: Sequence[str] = PROVIDERS,
) -> None:
    """Refuse a block that cannot be stored.

    Args:
        provider: Provider name.
        model: Model name or pattern, or ``default``.
        limits: Values by key; None means unlimited.
        all_providers: Names of the providers of this cluster.

    Raises:
        ConfigurationError: If the block has a mistake; the message has one line with the mistake
            and a suggestion.
    """
    if provider not in all_providers:
        raise ConfigurationError(
            f"there is no provider {provider!r} (known: {listed(all_providers)})"
            f"{did_you_mean(provider, all_providers)}"
        )
    if not model.strip():
        raise ConfigurationError("the model is empty: give a name or a pattern, such as 'gpt-4o*'")
    _check_limits(limits)


def check_model_name(model: str) -> None:
    """Refuse the name or pattern of a new block; the limits of older names can be removed.

    Raises:
        ConfigurationError: If the name has a character that cannot be seen.
    """
    if problem := find_name_problem(model):
        raise ConfigurationError(f"the name of the model {problem}")


def _check_limits(limits: Mapping[str, Any]) -> None:
    for key in limits:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS) or f"; there is {listed(KEYS)}"
            raise ConfigurationError(f"there is no limit {key!r}{hint}")
    RateLimitConfig(**limits)


def _is_understood(block: StoredBlock) -> bool:
    try:
        _check_limits(block.limits)
    except ConfigurationError as error:
        log.warning(
            "stored_limits_ignored", provider=block.provider, model=block.model, error=str(error)
        )
        return False
    return True


def _value(text: str) -> Any:
    if text.lower() in UNLIMITED_WORDS:
        return None
    try:
        return int(text)
    except ValueError:
        return text


def _default_values(given: ProviderLimits, stored: Mapping[str, Any]) -> dict[str, LimitValue]:
    source: Source = "built-in" if given.named(DEFAULT_BUCKET) is None else "configuration"
    values = {key: LimitValue(value=getattr(given.default, key), source=source) for key in KEYS}
    return values | _stored_values(stored)


def _model_values(
    given: ProviderLimits,
    model: str,
    stored: Mapping[str, Any],
    default: Mapping[str, LimitValue],
) -> dict[str, LimitValue]:
    values = {
        key: LimitValue(value=value.value, source=value.source, inherited=True)
        for key, value in default.items()
    }
    if model == TOKEN_COUNT:
        values = {key: LimitValue(value=getattr(UNLIMITED, key), source="built-in") for key in KEYS}
    for key in given.named(model) or ():
        values[key] = LimitValue(value=getattr(given.models[model], key), source="configuration")
    return values | _stored_values(stored)


def _stored_values(stored: Mapping[str, Any]) -> dict[str, LimitValue]:
    return {key: LimitValue(value=value, source="stored") for key, value in stored.items()}


def _config(values: Mapping[str, LimitValue]) -> RateLimitConfig:
    return RateLimitConfig(**{key: value.value for key, value in values.items()})

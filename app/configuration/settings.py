"""Reads all settings from the environment, ``.env`` and one YAML file; no other module does so.

This file has over 400 lines because only one module may read the environment.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from app.configuration.functions import FunctionPath
from app.configuration.provider_access import ProviderAccess
from app.configuration.sections import (
    VARIABLE,
    AttachmentSettings,
    CircuitBreaker,
    Costs,
    EngineSettings,
    LoggingSettings,
    Monitoring,
    ProviderLimits,
    ProviderSettings,
    Retry,
    ToolSettings,
    check_providers,
)
from app.configuration.service_urls import read_postgres_url, read_redis_url
from app.configuration.sources import (
    DOTENV,
    NESTED,
    PREFIX,
    YamlFile,
    check_dotenv,
    explain_decoding,
    explain_refusal,
)
from app.configuration.url_parts import NOT_TEXT, is_text, secrets_of, with_password
from app.domain.circuit import CircuitBreakerConfig
from app.domain.kinds import QUEUES_OF_KINDS
from app.domain.policies import CostConfig, MonitorConfig, RateLimitConfig
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.domain.retry import RetryPolicy
from app.domain.suggestions import did_you_mean, listed
from app.errors import ConfigurationError, WorkflowFileError

SERVICES = {"database_url": read_postgres_url, "redis_url": read_redis_url}
KEYS = ("openai_api_key", "anthropic_api_key")
SECRETS = (*SERVICES, "database_password", "redis_password", *KEYS, "flower_basic_auth")
#: The variable of ``keyless``.
KEYLESS = f"{PREFIX}KEYLESS"
ADDRESS = re.compile(r"[A-Za-z0-9_.:-]+(?:/[0-9]{1,3})?")
AGENT_SECRET = "AGENT_SECRET_"  # noqa: S105  the prefix of the variables that agents may use
#: Names of variables whose values are secrets; agents, tools and headers may use these variables.
SECRET_VARIABLE = re.compile(r"(?:KEY|SECRET|TOKEN|PASSWORD)$", re.IGNORECASE)
WEB_SCHEMES = ("http://", "https://")


_BUILT_IN_NAMES = frozenset(provider.name for provider in BUILT_IN)


def _variable(name: str) -> str | None:
    """Return a variable's value from the environment or else from ``.env``; None for no value."""
    return os.environ.get(name) or DotEnvSettingsSource(Settings).env_vars.get(name.lower()) or None


def _nothing(_: str) -> None:
    """Return no value, in place of the value of any variable."""


def _unprefixed(name: str) -> Any:
    """Make a field; its environment variable is the field's name in capitals, without a prefix."""
    return Field(default=None, validation_alias=name)


def _default_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "agentchord"


class Settings(BaseSettings):
    """All settings of an operator; ``load_settings`` builds them.

    From the highest precedence to the lowest, the sources are the environment, ``.env`` in the
    working directory, the YAML file that AGENTCHORD_CONFIG names, and the defaults. Sections are
    merged key by key. Settings are read once, so a process must be restarted to see a change. To
    change rate limits or budgets without a restart of the workers, use ``agentchord limits`` or
    ``agentchord budgets``.

    Example:
        settings = load_settings()
        settings.engine.lane_width  # 50, or AGENTCHORD_ENGINE__LANE_WIDTH
        load_settings(openai_base_url="http://127.0.0.1:8080/v1")  # an argument overrides all

    Attributes:
        database_url: URL of Postgres, ``postgresql://...``; None starts the embedded Postgres.
        redis_url: URL of Redis, ``redis://...``; None starts the embedded Redis.
        database_password: Password for ``database_url``, as it is; for a URL without a password.
        redis_password: Password for ``redis_url``, as it is; for a URL without a password.
        openai_api_key: Key for OpenAI, or for a server with OpenAI's protocol.
        openai_base_url: URL of that server; None means OpenAI itself.
        anthropic_api_key: Key for Anthropic, or for a server with Anthropic's protocol.
        anthropic_base_url: URL of that server; None means Anthropic itself.
        config: The YAML file.
        home: Folder of the embedded services and of all other files.
        flower_basic_auth: ``user:password`` for Flower.
        keyless: Whether the process works without the keys of providers, wherever the keys stand.
        imports: Modules with tools or functions; workers load these modules.
        allow_addresses: Hosts, addresses and networks that are not public, and that agents may
            reach nevertheless.
        on_failure: Path ``package.module:function`` of a function; workers call this function for
            every agent that has failed and is not retried.
        providers: Further providers, or changes to the built-in providers.
        rate_limits: Limits by provider.
        costs: The operator's own prices.
        retry: Retry policy of agents that have no retry policy of their own.
        circuit_breaker: The circuit breakers. If all calls to a model fail, the model's circuit
            breaker stops further calls.
        engine: Scheduling and workers.
        logging: Level and form of the logs.
        tools: Limits of tools.
        attachments: Files that agents may send with their prompts.
        monitoring: Metrics of workers.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        env_ignore_empty=True,
        env_file=DOTENV,
        env_file_encoding="utf-8",
        dotenv_filtering="only_existing",
        hide_input_in_errors=True,
        frozen=True,
    )

    # The passwords come before the URLs, because a field is checked after the fields before it.
    database_password: SecretStr | None = None
    redis_password: SecretStr | None = None
    database_url: SecretStr | None = _unprefixed("database_url")
    redis_url: SecretStr | None = _unprefixed("redis_url")
    openai_api_key: SecretStr | None = _unprefixed("openai_api_key")
    openai_base_url: str | None = _unprefixed("openai_base_url")
    anthropic_api_key: SecretStr | None = _unprefixed("anthropic_api_key")
    anthropic_base_url: str | None = _unprefixed("anthropic_base_url")
    config: Path | None = None
    home: Path = Field(default_factory=_default_home)
    flower_basic_auth: SecretStr | None = None
    keyless: bool = False
    imports: Annotated[list[str], NoDecode] = Field(default_factory=list)
    allow_addresses: Annotated[list[str], NoDecode] = Field(default_factory=list)
    on_failure: FunctionPath | None = None
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    rate_limits: dict[str, ProviderLimits] = Field(default_factory=dict)
    costs: Costs = CostConfig()
    retry: Retry = RetryPolicy()
    circuit_breaker: CircuitBreaker = CircuitBreakerConfig()
    engine: EngineSettings = EngineSettings()
    logging: LoggingSettings = LoggingSettings()
    tools: ToolSettings = ToolSettings()
    attachments: AttachmentSettings = AttachmentSettings()
    monitoring: Monitoring = MonitorConfig()

    def all_providers(self) -> tuple[Provider, ...]:
        """Return every provider, the built-in providers first."""
        given = {each.name: each for each in BUILT_IN} | {
            name: Provider(
                name=name,
                protocol=one.protocol or protocol_of(name).name,
                models=one.models,
                service_tier=one.service_tier,
                api=one.api,
                parameters=one.parameters,
            )
            for name, one in self.providers.items()
        }
        return tuple(given.values())

    @property
    def provider_names(self) -> tuple[str, ...]:
        """Names of all providers; the queue of each provider has the provider's name."""
        return tuple(dict.fromkeys((*(each.name for each in BUILT_IN), *self.providers)))

    @property
    def agent_queues(self) -> tuple[str, ...]:
        """Names of all queues that carry agents, for providers and for kinds without a provider."""
        return (*self.provider_names, *QUEUES_OF_KINDS.values())

    def access_to(self, provider: str) -> ProviderAccess:
        """Return a provider's URL, key and headers, with secrets in place of the variables."""
        given = self.providers.get(provider, ProviderSettings())
        read = _nothing if self.keyless else _variable
        found = {
            name: read(name) for text in given.headers.values() for name in VARIABLE.findall(text)
        }
        variable, key = given.api_key_env, None
        base_url = given.base_url
        if provider in _BUILT_IN_NAMES:
            base_url = getattr(self, f"{provider}_base_url") or base_url
        if provider in _BUILT_IN_NAMES and not given.credentials:
            key = getattr(self, f"{provider}_api_key") if variable is None else None
            variable = variable or f"{provider}_api_key".upper()
        if key is None and variable is not None and (text := read(variable)):
            key = SecretStr(text)
        return ProviderAccess(
            base_url=base_url,
            api_key=key,
            api_key_env=variable,
            credentials=given.credentials,
            headers={
                name: SecretStr(VARIABLE.sub(lambda match: found[match[1]] or "", text))
                for name, text in given.headers.items()
            },
            query=given.query,
            missing=tuple(name for name, value in found.items() if not value),
        )

    def key_variables(self) -> frozenset[str]:
        """Return the names of the environment variables that only workers of agents need."""
        found = {self.access_to(each.name).api_key_env for each in self.all_providers()}
        for given in self.providers.values():
            found |= {name for text in given.headers.values() for name in VARIABLE.findall(text)}
        found |= {name for name in os.environ if name.startswith(AGENT_SECRET)}
        return frozenset(name.upper() for name in found if name)

    def environment_without_keys(self) -> dict[str, str] | None:
        """Return this process's environment without keys; None if the process has no keys already.

        Another spelling of a variable's name, such as small letters, counts, too.
        """
        names = self.key_variables()
        kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
        if self.keyless and len(kept) == len(os.environ):
            return None
        return kept | {KEYLESS: "1"}

    def secret_values(self) -> set[str]:
        """Return every known secret in plain text; only code that hides secrets may use this."""
        named = [name for name in os.environ if SECRET_VARIABLE.search(name)]
        found = {_variable(name) or "" for name in named}
        given = [getattr(self, name) for name in SECRETS]
        given += [database.url for database in self.tools.sql.values()]
        for provider in self.all_providers():
            access = self.access_to(provider.name)
            given += [access.api_key, *access.headers.values()]
        for text in (each.get_secret_value() for each in given if each is not None):
            # Only the password of a URL is a secret; an error message may show the rest of the URL.
            found |= secrets_of(text) if "://" in text else {text}
            found.add(text.partition(" ")[2] if text.lower().startswith("bearer ") else "")
        return found - {""}

    def rate_limit_for(self, provider: str, model: str) -> tuple[str, RateLimitConfig]:
        """Return the bucket with the limits for a model's calls.

        Args:
            provider: Provider name.
            model: Model name.

        Returns:
            Name of the bucket, such as ``openai/default`` or ``openai/gpt-4o*``, and its limits.
            The exact name takes precedence over patterns. A longer pattern takes precedence over a
            shorter pattern.
        """
        block, limits = self.rate_limits.get(provider, ProviderLimits()).bucket_of(model)
        return f"{provider}/{block}", limits

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - an overridden method's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the YAML file as the source with the lowest precedence."""
        return init_settings, env_settings, dotenv_settings, YamlFile(settings_cls)

    @field_validator(*SECRETS, "openai_base_url", "anthropic_base_url", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("openai_base_url", "anthropic_base_url")
    @classmethod
    def _check_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(WEB_SCHEMES):
            raise ValueError(f"must begin with {' or '.join(WEB_SCHEMES)}")
        return value

    @field_validator(*SECRETS, "openai_base_url", "anthropic_base_url", "imports", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        """Refuse bytes of the environment that no server could receive as they are."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and not is_text(text):
            raise ValueError(NOT_TEXT)
        return value

    @field_validator(*SERVICES)
    @classmethod
    def _complete(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Check a URL, and add the password that is given alone."""
        if value is None:
            return None
        # A file with a secret often ends with a line end, which no URL has.
        text, name = value.get_secret_value().strip(), str(info.field_name)
        if password := info.data.get(name.replace("_url", "_password")):
            text = with_password(text, password.get_secret_value())
        SERVICES[name](text)
        return SecretStr(text)

    @field_validator("config", "home")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        try:
            return value and value.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(
                f"there is no home directory: give an absolute path, such as {PREFIX}HOME=/var/..."
            ) from error

    @field_validator("providers")
    @classmethod
    def _check_each(cls, value: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        check_providers(value, {provider.name: provider.protocol for provider in BUILT_IN})
        return value

    @model_validator(mode="after")
    def _check_limited_providers(self) -> Self:
        names = self.provider_names
        for name in self.rate_limits:
            if name not in names:
                problem = (
                    f"there is no provider {name!r} (known: {listed(names)})"
                    f"{did_you_mean(name, names)}"
                )
                raise PydanticCustomError(
                    "refused", "{problem}", {"problem": problem, "key": "rate_limits"}
                )
        return self

    @field_validator("imports", "allow_addresses", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("allow_addresses")
    @classmethod
    def _check_addresses(cls, value: list[str]) -> list[str]:
        for entry in value:
            if not ADDRESS.fullmatch(entry):
                raise ValueError(
                    f"{entry!r} is neither a host, such as agents.internal, nor an address, nor a "
                    "network, such as 10.0.0.0/8"
                )
        return value

    @field_validator("imports")
    @classmethod
    def _check_modules(cls, value: list[str]) -> list[str]:
        for name in value:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{name!r} is not a module's name: write it as in an import")
        return value


def load_settings(**overrides: Any) -> Settings:
    """Read every setting.

    Args:
        **overrides: Fields of ``Settings`` that take precedence over every source.

    Returns:
        The settings, immutable.

    Raises:
        ConfigurationError: If a setting is wrong. The message is one line. The line has the reason
            and the place. The place is a variable, or a file with a line and a key.
    """
    try:
        check_dotenv(Path(DOTENV))
        settings = Settings(**overrides)
        without = [name for name in KEYS if name not in overrides] if settings.keyless else []
        return settings.model_copy(update=dict.fromkeys(without))
    except ValidationError as error:
        raise ConfigurationError(explain_refusal(error, Settings, overrides, SECRETS)) from error
    except SettingsError as error:
        raise ConfigurationError(explain_decoding(error)) from error
    except WorkflowFileError as error:
        is_named = error.line or error.file == DOTENV
        hint = "" if is_named else f" (the file is named by {PREFIX}CONFIG)"
        raise ConfigurationError(f"{error}{hint}") from error


def agent_secret(name: str) -> SecretStr | None:
    """Return the value of an agent's secret variable; None if the variable is not set.

    Args:
        name: Name of the variable, from an agent's config. The agent's kind has already checked
            that agents may use this variable.
    """
    value = os.environ.get(name)
    return SecretStr(value) if value else None

"""The sections of the configuration: their keys, types, defaults and bounds.

The file is over 400 lines because it is the one list of all keys that can be configured.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.configuration.functions import FunctionPath
from app.domain.budgets import DEFAULT_THRESHOLDS
from app.domain.circuit import CircuitBreakerConfig
from app.domain.plain_text import find_name_problem
from app.domain.policies import CostConfig, MonitorConfig, RateLimitConfig
from app.domain.protocols import PROTOCOLS
from app.domain.retry import RetryPolicy
from app.domain.suggestions import did_you_mean, listed
from app.errors import ConfigurationError

#: Names that a provider must not have, because other queues or the command line use these names.
RESERVED_NAMES = ("scheduler", "agents", "function", "http", "workflow")
PROVIDER_NAME = re.compile(r"(?=.{1,50}$)[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
#: A variable of the environment inside a header's value.
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_HEADERS = frozenset({"api-key", "authorization", "x-api-key"})


def _check_model_name(name: str) -> str:
    if problem := find_name_problem(name):
        raise ValueError(problem)
    return name


#: Name of a model, or a pattern of names.
ModelName = Annotated[str, AfterValidator(_check_model_name)]


def check_keys(values: Any, kinds: Mapping[str, Any]) -> None:
    """Refuse keys and values that pydantic would accept, or would refuse with a poor message.

    Args:
        values: The given value of a section. Only a mapping is checked.
        kinds: Type of every known key.

    Raises:
        PydanticCustomError: If a key is unknown, or a value is a bool instead of a number; the
            context of the error has the key.
    """
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if key not in kinds:
            hint = did_you_mean(str(key), kinds) or f"; known: {listed(kinds)}"
            raise PydanticCustomError(
                "key", "there is no such key{hint}", {"key": key, "hint": hint}
            )
        if isinstance(value, bool) and kinds[key] is not bool:
            raise PydanticCustomError("key", "true and false have no meaning here", {"key": key})


def _validate_domain(value: Any, handler: ValidatorFunctionWrapHandler, kind: type) -> Any:
    """Build a frozen value of the domain; the value checks itself."""
    check_keys(value, {field.name: field.type for field in fields(kind)})
    try:
        return handler(value)
    except ConfigurationError as error:
        reason = str(error)
        words = reason.replace("'", " ").split()
        # The error message has the line of the key. If the reason names no key, the error message
        # has the line of the section.
        key = next((key for key in value if key in words), None)
        context = {"reason": reason, "key": key}
        raise PydanticCustomError("refused", "{reason}", context) from error


def _domain_schema(kind: type, handler: GetCoreSchemaHandler) -> CoreSchema:
    return core_schema.no_info_wrap_validator_function(
        partial(_validate_domain, kind=kind), handler(kind)
    )


#: Name of the bucket for all models that have no bucket of their own.
DEFAULT_BUCKET = "default"
#: The key of ``models`` whose block limits the requests that count the tokens of long prompts.
TOKEN_COUNT = "token_count"  # noqa: S105 this is a name, not a secret
UNLIMITED = RateLimitConfig(
    requests_per_minute=None,
    requests_per_hour=None,
    requests_per_day=None,
    tokens_per_minute=None,
    concurrent_requests=None,
)
_TIERS = [field.name for field in fields(RateLimitConfig) if field.name != "enforcement"]
_DOMAIN = GetPydanticSchema(_domain_schema)
Limits = Annotated[RateLimitConfig, _DOMAIN]
Costs = Annotated[CostConfig, _DOMAIN]
Retry = Annotated[RetryPolicy, _DOMAIN]
CircuitBreaker = Annotated[CircuitBreakerConfig, _DOMAIN]
Monitoring = Annotated[MonitorConfig, _DOMAIN]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _check_folder(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError(
            f"{str(value)!r} is not an absolute path: give one, because workers may start in any "
            "folder"
        )
    return value


WorkerFolder = Annotated[Path, AfterValidator(_check_folder)]


class Section(BaseModel):
    """Base of the sections: immutable, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, values: Any) -> Any:
        check_keys(values, {name: field.annotation for name, field in cls.model_fields.items()})
        return values


class AttachmentSettings(Section):
    """Files that agents may send with their prompts.

    Attributes:
        folder: Folder on the workers; files in this folder may be sent. None means that no path is
            read.
        max_bytes: Largest number of bytes of all attachments of an agent.
        max_pages: Largest number of pages of a PDF.
        allowed_hosts: Hosts from which files may be loaded; ``*.example.com`` stands for all hosts
            below that name. If the list is empty, every host with a public address is allowed.
        allowed_networks: Private networks, such as 10.1.0.0/16, that may also be reached.
        timeout_s: Seconds that the loading of a file may take, including redirects.
    """

    folder: WorkerFolder | None = None
    max_bytes: int = Field(20_000_000, ge=1, le=100_000_000)
    max_pages: int = Field(100, ge=1, le=10_000)
    allowed_hosts: tuple[str, ...] = ()
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 20.0


class EngineSettings(Section):
    """Scheduling of runs, and the work of workers on agents.

    Attributes:
        max_concurrent_workflows: Largest number of runs that are under way together; further
            runs stay pending.
        default_max_tokens: Largest number of tokens that a call generates if its agent sets
            no max_tokens.
        lane_width: Largest number of agents of one run on which a lane works at the same time.
        lease_s: Seconds for which a worker keeps its right to an attempt after a heartbeat.
        heartbeat_s: Seconds between two renewals of the leases.
        watchdog_s: Seconds between two searches for lost work.
        drain_grace_s: Seconds that calls in flight may still take after a worker is asked to stop.
        long_wait_s: Longest time in seconds that an agent in a lane waits before its first call. If
            the agent has to wait longer, it gives back its lease and its place in the lane.
        max_recoveries: Number of times that an agent may lose its worker before the agent is
            quarantined.
        max_output_bytes: Largest output of an agent, as JSON in UTF-8.
        max_items: Longest list that a for_each may run over.
        max_collected_bytes: Largest output of a for_each or a sub-workflow, as JSON in UTF-8.
        max_depth: Deepest nesting of sub-workflows.
        worker_threads: Threads of a worker, one per lane.
        remote_control: Whether workers obey all of Celery's remote commands, such as ``shutdown``
            and ``rate_limit``. Otherwise workers obey only the commands with which Flower reads.
        budget_thresholds: Percentages of a run's budget; if the spending passes one of these
            percentages, an event is recorded.
    """

    max_concurrent_workflows: int = Field(50, ge=1, le=100_000)
    default_max_tokens: int = Field(4096, ge=1, le=10_000_000)
    lane_width: int = Field(50, ge=1, le=10_000)
    lease_s: Seconds = 15.0
    heartbeat_s: Seconds = 5.0
    watchdog_s: Seconds = 5.0
    drain_grace_s: float = Field(30.0, ge=0, le=86_400)
    long_wait_s: Seconds = 5.0
    max_recoveries: int = Field(3, ge=0, le=1000)
    max_output_bytes: int = Field(1_000_000, ge=1, le=100_000_000)
    max_items: int = Field(10_000, ge=1, le=100_000)
    max_collected_bytes: int = Field(50_000_000, ge=1, le=100_000_000)
    max_depth: int = Field(8, ge=1, le=12)
    worker_threads: int = Field(128, ge=1, le=10_000)
    remote_control: bool = False
    budget_thresholds: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = DEFAULT_THRESHOLDS

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError(
                f"lease_s is {self.lease_s:g} and heartbeat_s is {self.heartbeat_s:g}: make the "
                "lease at least twice as long, or one late heartbeat loses the agents"
            )
        return self


class LoggingSettings(Section):
    """Level and form of the logs.

    Attributes:
        level: Lowest level that is written.
        format: ``json`` for programs, or ``console`` for people; ``auto`` means ``console`` if the
            output is a terminal, and ``json`` otherwise.
    """

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "json", "console"] = "auto"

    @field_validator("level", mode="before")
    @classmethod
    def _upper(cls, level: Any) -> Any:
        return level.upper() if isinstance(level, str) else level


class HttpTools(Section):
    """Hosts and networks that ``http_request`` and ``fetch_page`` may reach.

    Attributes:
        allowed_hosts: Names of hosts; ``*.example.com`` stands for all hosts below that name. If
            the list is empty, every host with a public address is allowed.
        allowed_networks: Private networks, such as 10.1.0.0/16, that may also be reached.
        methods: HTTP methods that ``http_request`` may use.
        timeout_s: Seconds that a request may take, including its redirects.
        max_bytes: Largest number of bytes that are read from an answer; the rest is dropped.
        max_redirects: Largest number of redirects that a request follows.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    methods: tuple[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], ...] = (
        "GET",
        "HEAD",
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 20.0
    max_bytes: int = Field(2_000_000, ge=1, le=100_000_000)
    max_redirects: int = Field(5, ge=0, le=50)


class Database(Section):
    """A database that ``sql_query`` may read.

    Attributes:
        url: SQLAlchemy URL of a Postgres or SQLite database.
        max_rows: Largest number of rows in the result of a query.
        max_bytes: Longest result of a query, as JSON in UTF-8.
        timeout_s: Seconds that a query may take.
    """

    url: SecretStr
    max_rows: int = Field(200, ge=1, le=100_000)
    max_bytes: int = Field(1_000_000, ge=1000, le=100_000_000)
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0

    @model_validator(mode="before")
    @classmethod
    def _check_mapping(cls, values: Any) -> Any:
        if isinstance(values, str):
            # The usual message of pydantic would show the string, which contains a password.
            raise ValueError("give a mapping with the key url")  # noqa: TRY004  pydantic takes it
        return values


class FileTools(Section):
    """Folder that ``list_files``, ``read_file`` and ``write_file`` may use.

    Attributes:
        folder: The folder; None switches these tools off.
        max_bytes: Size of the largest file that may be read or written.
    """

    folder: WorkerFolder | None = None
    max_bytes: int = Field(1_000_000, ge=1, le=100_000_000)


class ToolSettings(Section):
    """Tools: the size of their results, and the limits of the built-in tools.

    Attributes:
        max_output_bytes: Largest result of a tool, in bytes of UTF-8; a longer result is cut.
        http: Hosts and networks that ``http_request`` and ``fetch_page`` may reach.
        sql: Databases that ``sql_query`` may read. The keys are the names that models use.
        files: Folder that the file tools may use.
    """

    max_output_bytes: int = Field(100_000, ge=1, le=100_000_000)
    http: HttpTools = HttpTools()
    sql: dict[str, Database] = Field(default_factory=dict)
    files: FileTools = FileTools()


class ProviderLimits(Section):
    """Rate limits of one provider.

    Attributes:
        default: The bucket of every model that has no bucket of its own.
        models: Block of each model name or pattern (``gpt-4o*``). If a block leaves out a tier, the
            tier is taken from ``default``. The block ``token_count`` limits the requests that count
            the tokens of long prompts; a tier that this block leaves out is unlimited.
    """

    default: Limits = RateLimitConfig()
    models: dict[ModelName, Limits] = Field(default_factory=dict)
    _named: dict[str, frozenset[str]] = PrivateAttr(default_factory=dict)

    def named(self, model: str) -> frozenset[str] | None:
        """Return the keys that were given in a block; return None if the block was not given.

        Args:
            model: A key of ``models``, or ``default``.
        """
        return self._named.get(model)

    def bucket_of(self, model: str) -> tuple[str, RateLimitConfig]:
        """Return the block with the limits for a model's calls.

        Returns:
            The key of the block in ``models``, or ``default``, and the limits of the block. The
            exact name takes precedence over patterns. A longer pattern takes precedence over a
            shorter pattern. Requests that count prompts have limits only if ``models`` has a block
            with the exact name ``token_count``, because no provider counts these requests among the
            calls of models.
        """
        if model in self.models:
            return model, self.models[model]
        if model == TOKEN_COUNT:
            return TOKEN_COUNT, UNLIMITED
        matching = [pattern for pattern in self.models if fnmatchcase(model, pattern)]
        if matching:
            pattern = max(matching, key=len)
            return pattern, self.models[pattern]
        return DEFAULT_BUCKET, self.default

    @model_validator(mode="wrap")
    @classmethod
    def _remember_names(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep the keys of each block, because stored limits replace single keys later."""
        made = handler(values)
        if isinstance(values, Mapping):
            blocks = {DEFAULT_BUCKET: values.get("default"), **(values.get("models") or {})}
            made._named.update(  # noqa: SLF001  it is this class
                (model, frozenset(block if isinstance(block, Mapping) else vars(block)))
                for model, block in blocks.items()
                if block is not None
            )
        return made

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: Any) -> Any:
        """Fill in the missing tiers; if ``default`` is given, it replaces all built-in numbers."""
        if not isinstance(values, Mapping):
            return values
        default: Any = values.get("default")
        models: Any = values.get("models")
        if isinstance(default, Mapping):
            default = dict.fromkeys(_TIERS) | dict(default)
        base = vars(RateLimitConfig()) if default is None else default
        if isinstance(models, Mapping) and isinstance(base, Mapping):
            models = {
                name: {**_inherited(name, base), **tiers} if isinstance(tiers, Mapping) else tiers
                for name, tiers in models.items()
            }
        completed = {"default": default, "models": models}
        return dict(values) | {key: value for key, value in completed.items() if value is not None}


def _inherited(model: str, default: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tiers that a model's block takes over; the block of counts is unlimited."""
    return vars(UNLIMITED) if model == TOKEN_COUNT else default


class ProviderSettings(Section):
    """A provider, or changes to a built-in provider.

    Attributes:
        protocol: Protocol of the provider; only a built-in provider may leave out this key.
        base_url: URL of the provider, with ``/v1`` for OpenAI's protocol, and without ``/v1`` for
            Anthropic's protocol.
        api_key_env: Environment variable that contains the API key; None if the provider needs no
            key.
        credentials: Path ``package.module:function`` of a function that returns tokens which
            expire; this function replaces ``api_key_env``.
        headers: Further headers of every request; ``${NAME}`` stands for an environment variable.
        query: Query parameters of every request, such as an ``api-version``.
        models: Names and patterns of the models that the provider serves unless an agent names
            another provider.
        service_tier: Service tier of a request if its agent names no service tier. None means the
            standard tier for models that also have other tiers in the price list. With ``auto``,
            the settings of the account decide; the hold then counts the most expensive tier.
        api: Request form of the provider's calls, if the provider's protocol has several forms
            (``chat`` or ``responses`` for OpenAI's protocol); None means that the model and the
            tools decide.
        parameters: Names of parameters that agents may give in addition to the known parameters of
            the protocol. AgentChord does not know the price of such a parameter.
    """

    protocol: str | None = None
    api: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    credentials: FunctionPath | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    models: tuple[ModelName, ...] = ()
    service_tier: str | None = Field(None, min_length=1, max_length=50)
    parameters: tuple[str, ...] = ()

    @field_validator("protocol")
    @classmethod
    def _check_protocol(cls, value: str | None) -> str | None:
        if value is not None and value not in PROTOCOLS:
            raise ValueError(f"is not a protocol: give {' or '.join(map(repr, PROTOCOLS))}")
        return value

    @field_validator("base_url")
    @classmethod
    def _check_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        parts = urlsplit(value or "")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "has a user, a password or a query: give keys with api_key_env or headers, and "
                "parameters with query"
            )
        return value

    @field_validator("api_key_env")
    @classmethod
    def _check_variable(cls, value: str | None) -> str | None:
        if value is not None and not value.isidentifier():
            # The value is not shown, because it may be the key itself.
            raise ValueError("give the name of an environment variable, never the key itself")
        return value

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.lower() in _SECRET_HEADERS and not VARIABLE.search(text):
                raise ValueError(
                    f"{name} is a secret: write ${{NAME}} with the name of an environment variable"
                )
        return value


def check_providers(providers: Mapping[str, ProviderSettings], built_in: Mapping[str, str]) -> None:
    """Refuse providers that cannot work together.

    Args:
        providers: The configured providers.
        built_in: Protocols of the built-in providers, by name.

    Raises:
        PydanticCustomError: If a provider is refused; the context of the error has the name of the
            provider as ``key``.
    """
    owners: dict[str, str] = {}
    for name, given in providers.items():
        problem = _provider_problem(name, given, built_in)
        for pattern in given.models:
            if (other := owners.setdefault(pattern, name)) != name:
                problem = f"models has {pattern!r}, which {other!r} also has: remove it from one"
        problem = problem or _credentials_problem(given)
        if problem:
            raise PydanticCustomError("key", "{problem}", {"key": name, "problem": problem})


def _provider_problem(
    name: str, given: ProviderSettings, built_in: Mapping[str, str]
) -> str | None:
    if not PROVIDER_NAME.fullmatch(name):
        return "cannot name a queue: use at most 50 characters, a-z and 0-9, with _ or - between"
    if name in RESERVED_NAMES:
        return "is the name of another queue: choose another one"
    if problem := _api_problem(given.api, given.protocol or built_in.get(name)):
        return problem
    if name in built_in:
        if given.protocol not in (None, built_in[name]):
            return f"speaks {built_in[name]}: for another server choose another name"
        return None
    missing = [key for key in ("protocol", "base_url") if getattr(given, key) is None]
    return f"the key {missing[0]!r} is missing: add it" if missing else None


def _credentials_problem(given: ProviderSettings) -> str | None:
    names = {name.lower() for name in given.headers}
    if given.credentials and (given.api_key_env or "authorization" in names):
        other = "api_key_env" if given.api_key_env else "a header Authorization"
        return f"has credentials and {other}, which both give the key: remove one of them"
    return None


def _api_problem(api: str | None, protocol: str | None) -> str | None:
    known = PROTOCOLS[protocol].apis if protocol else ()
    if api is None or api in known:
        return None
    if not known:
        return "has the key 'api', but its protocol has only one request form: remove the key"
    return f"has api {api!r}: give {' or '.join(map(repr, known))}, or remove the key"

"""Every error that AgentChord raises on purpose.

Foreign exceptions (SDK, SQL, Redis, HTTP) stop at the adapter that meets them and are mapped to
one of these with ``raise ... from``. Whether an error may be retried is a fact of its class.

AgentChordError
├── ConfigurationError            a setting, environment variable or YAML key is wrong
├── WorkflowError (ValueError)    a workflow cannot be accepted as written
│   ├── WorkflowFileError         ... because of a file: carries file, line, field
│   └── UnknownWorkflow           no workflow or version by that id
├── UnknownRun (LookupError)      no run by that id
├── UnknownBudget (LookupError)   no standing budget of that scope and subject
├── OutOfScope                    the client's scope, a tenant, does not reach so far
├── RunConflict                   an operation, or its key, does not fit the run there is
├── ServiceUnavailable            Postgres or Redis cannot be reached
│   └── EmbeddedServicesError     the built-in Postgres or Redis cannot be started
├── SchemaMismatch                the database's schema is not the one this version needs
├── WaitTimeout (TimeoutError)    the caller's own timeout ended, the run goes on
└── AgentError                    why an attempt of an agent ended without a result
    ├── MissingInput              a placeholder has no value (no call was made)
    ├── TooManyItems              the list of a for_each is too long (no call was made)
    ├── SubWorkflowRefused        the run of a sub-workflow cannot start (no call was made)
    ├── ConditionFailed           a condition cannot be evaluated (no call was made)
    ├── OutputInvalid             the output does not fit its schema, or has no part that is mapped
    ├── UnknownModel              no price or no provider for a model (no call was made)
    ├── BudgetExceeded            the worst case does not fit a budget (no call was made)
    ├── ResultTooLarge            the output is over the limit (the cost is booked)
    ├── RecoveriesExhausted       the agent took its worker down with it too often
    ├── ToolError                 a tool is unknown, or failed in a way the model cannot repair
    ├── UnknownFunction           the workers do not load a function, or a kind of agents
    ├── InputRefused              an input is missing, or not of the type that a function takes
    ├── OutputRefused             what came out is no JSON value
    ├── FunctionFailed            a function agent's function raised (retriable)
    ├── AddressRefused            a URL leads where agents must not go (nothing was sent)
    │   └── HostUnknown           its host has no address now (retriable)
    ├── AgentTimeout              the agent's own time ran out (retriable)
    ├── CircuitOpen               its model fails for everybody, and agents are not to wait
    └── ProviderError             a request to a provider failed
        ├── RateLimited           429, temporary (retriable); carries retry_after_s
        ├── QuotaExhausted        429 or 402, the account is out of money
        ├── Overloaded            503 or 529 (retriable)
        ├── ServerFailure         any other 5xx, or an answer that is not the protocol (retriable)
        ├── ConnectionFailed      no answer, a broken stream, a request timeout (retriable)
        ├── AuthenticationFailed  401 or 403, or no key at all
        └── BadRequest            400, 404, 413, 422: the request itself is refused
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from app.domain.usage import Partial


class AgentChordError(Exception):
    """Base of every error of this package."""

    retriable: ClassVar[bool] = False


class ConfigurationError(AgentChordError):
    """A setting, an environment variable or a key of the YAML file is wrong."""


class WorkflowError(AgentChordError, ValueError):
    """A workflow cannot be accepted as written; the message names the offending agent.

    Attributes:
        field: Path of the field, such as ``agents[2].priority``, or None.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class WorkflowFileError(WorkflowError):
    """A workflow or configuration file is wrong at a known place.

    Attributes:
        file: Path as the user gave it.
        line: Line number from 1, or None when the whole file is meant.
        field: Path of the field, such as ``agents[2].priority``, or None.
    """

    def __init__(
        self, message: str, *, file: str, line: int | None = None, field: str | None = None
    ) -> None:
        place = file if line is None else f"{file}:{line}"
        text = f"{place}: {field}: {message}" if field else f"{place}: {message}"
        super().__init__(text, field=field)
        self.file = file
        self.line = line


class UnknownWorkflow(WorkflowError):
    """No workflow has this id."""


class UnknownRun(AgentChordError, LookupError):
    """No run has this id."""


class UnknownBudget(AgentChordError, LookupError):
    """No standing budget has this scope and subject."""


class OutOfScope(AgentChordError):
    """The operation needs another scope than the client has, which is that of one tenant."""


class RunConflict(AgentChordError):
    """The operation does not fit the state of the run, or its key is that of another run."""


class ServiceUnavailable(AgentChordError):
    """Postgres or Redis cannot be reached; the message says which and where (never a password)."""


class EmbeddedServicesError(ServiceUnavailable):
    """The built-in Postgres or Redis cannot be started here; the message carries the remedy."""


class SchemaMismatch(AgentChordError):
    """The database's schema is older or newer than this version needs."""


class WaitTimeout(AgentChordError, TimeoutError):
    """The caller stopped waiting; the run itself goes on."""


class AgentError(AgentChordError):
    """Why an attempt of an agent ended without a result."""


class MissingInput(AgentError):
    """A placeholder of the prompt has no value; no call was made."""


class TooManyItems(AgentError):
    """The list of a ``for_each`` has more elements than ``engine.max_items``; no call was made."""


class SubWorkflowRefused(AgentError):
    """The run of a sub-workflow cannot start, such as for an input that does not fit it."""


class ConditionFailed(AgentError):
    """An agent's condition is neither true nor false, or is over a limit; no call was made."""


class OutputInvalid(AgentError):
    """The output does not fit the agent's schema, or has no part that its output_mapping names.

    It is not retried: a model has had its turn to repair the output, with the error before it.
    """


class UnknownModel(AgentError):
    """A model has no price, or its provider is not known; no call was made."""


class BudgetExceeded(AgentError):
    """The call's worst case does not fit a budget; no call was made."""


class ResultTooLarge(AgentError):
    """The output is over the size limit; its cost is booked."""


class RecoveriesExhausted(AgentError):
    """The worker running this agent died too often; the agent is quarantined."""


class ToolError(AgentError):
    """A tool is unknown, or failed in a way that the model cannot repair."""


class UnknownFunction(AgentError):
    """The workers do not load the function, or the kind, of an agent."""


class InputRefused(AgentError):
    """An input is missing, or is not of the type that the agent's function takes."""


class OutputRefused(AgentError):
    """What an agent's function returned is no JSON value."""


class FunctionFailed(AgentError):
    """The function of an agent raised; one that raises an AgentError itself is not asked again."""

    retriable = True


class AddressRefused(AgentError):
    """A URL is not one of the public web, or leads to an address that is not; nothing was sent."""


class HostUnknown(AddressRefused):
    """The host of a URL has no address now; nothing was sent."""

    retriable = True


class AgentTimeout(AgentError):
    """The agent's timeout ran out while it was at work (waiting for limits does not count)."""

    retriable = True


class CircuitOpen(AgentError):
    """The model fails for everybody, and the configuration says not to wait; no call was made."""


class ProviderError(AgentError):
    """A request to a provider failed.

    Attributes:
        provider: Provider name, such as ``openai``.
        status: HTTP status, or None when there was no answer.
        code: The provider's own error code or type, or None.
        request_id: The provider's id of the request, or None.
        retry_after_s: Seconds the provider asked to wait, or None.
        headers: Rate-limit headers of the answer, lower-case names.
        reached: Whether the request may have reached the provider (and so gets a cost entry).
        partial: What had come of a streamed answer before it broke off, or None.
    """

    partial: "Partial | None" = None

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
        reached: bool = True,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.headers = headers or {}
        self.reached = reached


class RateLimited(ProviderError):
    """429 of a temporary kind."""

    retriable = True


class QuotaExhausted(ProviderError):
    """429 or 402 because the account's money or quota is used up: waiting does not help."""


class Overloaded(ProviderError):
    """503 or 529: the provider is overloaded."""

    retriable = True


class ServerFailure(ProviderError):
    """Any other 5xx, a 409 of Anthropic, or an answer that is not the protocol."""

    retriable = True


class ConnectionFailed(ProviderError):
    """No answer: connection refused or lost, a stream cut, a request timeout."""

    retriable = True


class AuthenticationFailed(ProviderError):
    """401 or 403, or no API key is configured."""


class BadRequest(ProviderError):
    """400, 404, 413 or 422: the provider refuses the request as it is."""

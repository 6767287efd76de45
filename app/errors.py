"""Every error that AgentChord raises on purpose, and every error class that it stores.

Foreign exceptions (SDK, SQL, Redis, HTTP) stop at the adapter that meets them and are mapped to
one of these with ``raise ... from``. What follows from an error of an agent is a fact of its
class: whether it is retried, the state in which it ends its agent, and what to do about it.
This file has over 400 lines because the tree is drawn here, beside its classes.

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
└── AgentError                    why an agent, or an attempt, ended without a whole result
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
    ├── OutputRefused             the returned value is not a JSON value
    ├── FunctionFailed            a function agent's function raised (retriable)
    ├── AddressRefused            a URL leads where agents must not go (nothing was sent)
    │   └── HostUnknown           its host has no address now (retriable)
    ├── AgentTimeout              the agent's own time ran out (retriable)
    ├── CircuitOpen               calls to the model fail cluster-wide, and agents are not to wait
    ├── ProviderError             a request to a provider failed
    │   ├── RateLimited           429, temporary (retriable); carries retry_after_s
    │   ├── QuotaExhausted        429 or 402, the account is out of money
    │   ├── Overloaded            503 or 529 (retriable)
    │   ├── ServerFailure         any other 5xx, or an answer outside the protocol (retriable)
    │   ├── ConnectionFailed      no answer, a broken stream, a request timeout (retriable)
    │   ├── AuthenticationFailed  401 or 403, or no key at all
    │   └── BadRequest            400, 404, 413, 422: the request itself is refused
    └── NotRaised                 stored by a statement or a worker, without an exception
        ├── RunStopped            its run was cancelled, timed out or failed first
        ├── ConditionFalse        its condition is false: it is skipped
        ├── UpstreamFailed        an agent that it depends on has no output
        ├── WorkerLost            the worker of the attempt went silent (retriable)
        ├── ItemsFailed           items of its for_each failed
        ├── SubWorkflowFailed     the run of its sub-workflow failed or was cancelled
        └── SubWorkflowPartial    the run of its sub-workflow completed in part
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from app.domain.usage import Partial

#: A state that ends an agent, as ``app.domain.status`` names it.
FinalState = Literal[
    "completed", "failed", "cancelled", "skipped", "rate_limited", "budget_exceeded"
]


class AgentChordError(Exception):
    """Base of every error of this package."""


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
    """Why an agent, or an attempt of it, ended without a whole result.

    Attributes:
        retriable: Whether another attempt may help.
        final: The state in which an agent ends that is not tried again.
        advice: What to do about it, in one line.
    """

    retriable: ClassVar[bool] = False
    final: ClassVar[FinalState] = "failed"
    advice: ClassVar[str] = "read the message"


class MissingInput(AgentError):
    """A placeholder of the prompt has no value; no call was made."""

    advice = "give the key in the run's input, or the agent a dependency that yields it"


class TooManyItems(AgentError):
    """The list of a ``for_each`` has more elements than ``engine.max_items``; no call was made."""

    advice = "give a shorter list, or raise engine.max_items"


class SubWorkflowRefused(AgentError):
    """The run of a sub-workflow cannot start, such as for an input that does not fit it."""

    advice = "read the error: it is what the inner workflow does not accept"


class ConditionFailed(AgentError):
    """An agent's condition is neither true nor false, or is over a limit; no call was made."""

    advice = "correct the condition: has(a.b) asks whether there is such a key"


class OutputInvalid(AgentError):
    """The output does not fit the agent's schema, or has no part that its output_mapping names.

    It is not retried: a model has had its turn to repair the output, with the error before it.
    """

    advice = "correct the schema or the mapping, raise max_tokens, or take another model"


class UnknownModel(AgentError):
    """A model has no price, or its provider is not known; no call was made."""

    advice = "give it a price under costs, or correct the model's name"


class BudgetExceeded(AgentError):
    """The call's worst case does not fit a budget; no call was made."""

    final = "budget_exceeded"
    advice = "raise its cost_limit or the budget (retry --cost-budget), or lower max_tokens"


class ResultTooLarge(AgentError):
    """The output is over the size limit; its cost is booked."""

    advice = "lower max_tokens, or raise engine.max_output_bytes"


class RecoveriesExhausted(AgentError):
    """The worker running this agent died too often; the agent is quarantined."""

    advice = "look for what ends the worker in its tools, or its memory"


class ToolError(AgentError):
    """A tool is unknown, or failed in a way that the model cannot repair."""

    advice = "list the tool's module under imports, repair it, or raise max_turns"


class UnknownFunction(AgentError):
    """The workers do not load the function, or the kind, of an agent."""

    advice = "list the function's module under imports, or install its plugin"


class InputRefused(AgentError):
    """An input is missing, or is not of the type that the agent's function takes."""

    advice = "give the key in the run's input, or correct the function's type hints"


class OutputRefused(AgentError):
    """The value that an agent's function returned is not a JSON value."""

    advice = "return a dict, list, text, number, bool or None"


class FunctionFailed(AgentError):
    """The function of an agent raised an exception other than an AgentError."""

    retriable = True
    advice = "repair the function; what no other attempt can help, raise as an AgentError"


class AddressRefused(AgentError):
    """A URL is not one of the public web, or leads to an address that is not; nothing was sent."""

    advice = "correct the URL, or permit its address under allow_addresses"


class HostUnknown(AddressRefused):
    """The host of a URL has no address now; nothing was sent."""

    retriable = True
    advice = "correct the URL, or look at the name servers"


class AgentTimeout(AgentError):
    """The agent's timeout ran out while it was at work (waiting for limits does not count).

    Attributes:
        called_s: Seconds that its last call had been out; 0 if none was.
    """

    retriable = True
    advice = "raise the agent's timeout, or ask for less output"

    def __init__(self, message: str, *, called_s: float = 0.0) -> None:
        super().__init__(message)
        self.called_s = called_s


class CircuitOpen(AgentError):
    """Calls to the model fail cluster-wide, and agents are not to wait; no call was made."""

    advice = "wait for the provider, or let agents wait: circuit_breaker.when_open"


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
        partial: The part of a streamed answer that came before it broke off, or None.
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
    final = "rate_limited"
    advice = "set rate_limits to what the account has: agentchord limits shows them"


class QuotaExhausted(ProviderError):
    """429 or 402 because the account's money or quota is used up: waiting does not help."""

    advice = "pay, or raise the account's spend limit"


class Overloaded(ProviderError):
    """503 or 529: the provider is overloaded."""

    retriable = True
    advice = "wait; or use another model"


class ServerFailure(ProviderError):
    """Any other 5xx, a 409 of Anthropic, or an answer that is not the protocol."""

    retriable = True
    advice = "wait; if it stays, look at the base URL and the provider's status page"


class ConnectionFailed(ProviderError):
    """No answer: connection refused or lost, a stream cut, a request timeout."""

    retriable = True
    advice = "check the network, the proxy and the base URL"


class AuthenticationFailed(ProviderError):
    """401 or 403, or no API key is configured."""

    advice = "set the provider's API key, and the rights that it has"


class BadRequest(ProviderError):
    """400, 404, 413 or 422: the provider refuses the request as it is."""

    advice = "correct the prompt, the model or its parameters: the provider says which"


class NotRaised(AgentError):
    """An agent, or an attempt, ended in a way that is stored and raised nowhere."""


class RunStopped(NotRaised):
    """The run was cancelled, timed out or failed before the agent had ended."""

    final = "cancelled"
    advice = "nothing is wrong with the agent: retry the run"


class ConditionFalse(NotRaised):
    """The agent's condition is false, so it was skipped; its output is null."""

    final = "skipped"
    advice = "correct the condition, if the agent was meant to run"


class UpstreamFailed(NotRaised):
    """An agent that this one depends on did not complete, so this one was not started."""

    final = "cancelled"
    advice = "mend what failed before it, or set accept_missing_inputs"


class WorkerLost(NotRaised):
    """The worker of an attempt went silent; the agent gets another attempt, which is no retry."""

    retriable = True
    advice = "look for what ended the worker, if it happens again"


class ItemsFailed(NotRaised):
    """Items of a ``for_each`` failed: all of them, or one of an agent that needs them all."""

    advice = "look at the items that failed"


class SubWorkflowFailed(NotRaised):
    """The run of a sub-workflow failed; if it was cancelled, its agent is cancelled, too."""

    advice = "look at the run of the sub-workflow"


class SubWorkflowPartial(NotRaised):
    """The run of a sub-workflow completed in part; the output is null for the other agents."""

    final = "completed"
    advice = "look at the run of the sub-workflow"


def error_classes(base: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """Yield every class of the tree from ``base`` on."""
    yield base
    for each in base.__subclasses__():
        yield from error_classes(each)


def error_named(name: str | None) -> type[AgentError] | None:
    """Return the class that is stored under a name, or None if no class of the tree has it."""
    return next((kind for kind in error_classes() if kind.__name__ == name), None)

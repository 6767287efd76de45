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

    A class gives its facts as arguments of the class statement; what it leaves out it inherits.

    Attributes:
        retriable: Whether another attempt may help.
        final: The state in which an agent ends that is not tried again.
        advice: What to do about it, in one line.
    """

    retriable: ClassVar[bool] = False
    final: ClassVar[FinalState] = "failed"
    advice: ClassVar[str] = "read the message"

    def __init_subclass__(
        cls,
        *,
        retriable: bool | None = None,
        final: FinalState | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init_subclass__()
        facts = {"retriable": retriable, "final": final, "advice": advice}
        for name, fact in facts.items():
            if fact is not None:
                setattr(cls, name, fact)


class MissingInput(
    AgentError, advice="give the key in the run's input, or the agent a dependency that yields it"
):
    """A placeholder of the prompt has no value; no call was made."""


class TooManyItems(AgentError, advice="give a shorter list, or raise engine.max_items"):
    """The list of a ``for_each`` has more elements than ``engine.max_items``; no call was made."""


class SubWorkflowRefused(
    AgentError, advice="read the error: it is what the inner workflow does not accept"
):
    """The run of a sub-workflow cannot start, such as for an input that does not fit it."""


class ConditionFailed(
    AgentError, advice="correct the condition: has(a.b) asks whether there is such a key"
):
    """An agent's condition is neither true nor false, or is over a limit; no call was made."""


class OutputInvalid(
    AgentError, advice="correct the schema or the mapping, raise max_tokens, or take another model"
):
    """The output does not fit the agent's schema, or has no part that its output_mapping names.

    It is not retried: a model has had its turn to repair the output, with the error before it.
    """


class UnknownModel(AgentError, advice="give it a price under costs, or correct the model's name"):
    """A model has no price, or its provider is not known; no call was made."""


class BudgetExceeded(
    AgentError,
    final="budget_exceeded",
    advice="raise its cost_limit or the budget (retry --cost-budget), or lower max_tokens",
):
    """The call's worst case does not fit a budget; no call was made."""


class ResultTooLarge(AgentError, advice="lower max_tokens, or raise engine.max_output_bytes"):
    """The output is over the size limit; its cost is booked."""


class RecoveriesExhausted(
    AgentError, advice="look for what ends the worker in its tools, or its memory"
):
    """The worker running this agent died too often; the agent is quarantined."""


class ToolError(
    AgentError, advice="list the tool's module under imports, repair it, or raise max_turns"
):
    """A tool is unknown, or failed in a way that the model cannot repair."""


class UnknownFunction(
    AgentError, advice="list the function's module under imports, or install its plugin"
):
    """The workers do not load the function, or the kind, of an agent."""


class InputRefused(
    AgentError, advice="give the key in the run's input, or correct the function's type hints"
):
    """An input is missing, or is not of the type that the agent's function takes."""


class OutputRefused(AgentError, advice="return a dict, list, text, number, bool or None"):
    """The value that an agent's function returned is not a JSON value."""


class FunctionFailed(
    AgentError,
    retriable=True,
    advice="repair the function; what no other attempt can help, raise as an AgentError",
):
    """The function of an agent raised an exception other than an AgentError."""


class AddressRefused(
    AgentError, advice="correct the URL, or permit its address under allow_addresses"
):
    """A URL is not one of the public web, or leads to an address that is not; nothing was sent."""


class HostUnknown(
    AddressRefused, retriable=True, advice="correct the URL, or look at the name servers"
):
    """The host of a URL has no address now; nothing was sent."""


class AgentTimeout(
    AgentError, retriable=True, advice="raise the agent's timeout, or ask for less output"
):
    """The agent's timeout ran out while it was at work (waiting for limits does not count).

    Attributes:
        called_s: Seconds that its last call had been out; 0 if none was.
    """

    def __init__(self, message: str, *, called_s: float = 0.0) -> None:
        super().__init__(message)
        self.called_s = called_s


class CircuitOpen(
    AgentError, advice="wait for the provider, or let agents wait: circuit_breaker.when_open"
):
    """Calls to the model fail cluster-wide, and agents are not to wait; no call was made."""


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


class RateLimited(
    ProviderError,
    retriable=True,
    final="rate_limited",
    advice="set rate_limits to what the account has: agentchord limits shows them",
):
    """429 of a temporary kind."""


class QuotaExhausted(ProviderError, advice="pay, or raise the account's spend limit"):
    """429 or 402 because the account's money or quota is used up: waiting does not help."""


class Overloaded(ProviderError, retriable=True, advice="wait; or use another model"):
    """503 or 529: the provider is overloaded."""


class ServerFailure(
    ProviderError,
    retriable=True,
    advice="wait; if it stays, look at the base URL and the provider's status page",
):
    """Any other 5xx, a 409 of Anthropic, or an answer that is not the protocol."""


class ConnectionFailed(
    ProviderError, retriable=True, advice="check the network, the proxy and the base URL"
):
    """No answer: connection refused or lost, a stream cut, a request timeout."""


class AuthenticationFailed(
    ProviderError, advice="set the provider's API key, and the rights that it has"
):
    """401 or 403, or no API key is configured."""


class BadRequest(
    ProviderError, advice="correct the prompt, the model or its parameters: the provider says which"
):
    """400, 404, 413 or 422: the provider refuses the request as it is."""


class NotRaised(AgentError):
    """An agent, or an attempt, ended in a way that is stored and raised nowhere."""


class RunStopped(
    NotRaised, final="cancelled", advice="nothing is wrong with the agent: retry the run"
):
    """The run was cancelled, timed out or failed before the agent had ended."""


class ConditionFalse(
    NotRaised, final="skipped", advice="correct the condition, if the agent was meant to run"
):
    """The agent's condition is false, so it was skipped; its output is null."""


class UpstreamFailed(
    NotRaised, final="cancelled", advice="mend what failed before it, or set accept_missing_inputs"
):
    """An agent that this one depends on did not complete, so this one was not started."""


class WorkerLost(
    NotRaised, retriable=True, advice="look for what ended the worker, if it happens again"
):
    """The worker of an attempt went silent; the agent gets another attempt, which is no retry."""


class ItemsFailed(NotRaised, advice="look at the items that failed"):
    """Items of a ``for_each`` failed: all of them, or one of an agent that needs them all."""


class SubWorkflowFailed(NotRaised, advice="look at the run of the sub-workflow"):
    """The run of a sub-workflow failed; if it was cancelled, its agent is cancelled, too."""


class SubWorkflowPartial(
    NotRaised, final="completed", advice="look at the run of the sub-workflow"
):
    """The run of a sub-workflow completed in part; the output is null for the other agents."""


def error_classes(base: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """Yield every class of the tree from ``base`` on."""
    yield base
    for each in base.__subclasses__():
        yield from error_classes(each)


def error_named(name: str | None) -> type[AgentError] | None:
    """Return the class that is stored under a name, or None if no class of the tree has it."""
    return next((kind for kind in error_classes() if kind.__name__ == name), None)

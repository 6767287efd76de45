"""Every error that AgentChord raises on purpose, and every error class that AgentChord stores.

An adapter that catches a foreign exception (SDK, SQL, Redis, HTTP) raises one of these errors with
``raise ... from``. The class of an agent's error decides whether the agent is retried, in which
state the agent ends, and which advice the user gets. This file has over 400 lines because the tree
is drawn here, beside the classes of the tree.

AgentChordError
├── ConfigurationError            a setting, environment variable or YAML key is wrong
├── WorkflowError (ValueError)    a workflow cannot be accepted as written
│   ├── WorkflowFileError         a file is wrong: the error has the file, line and field
│   ├── SeveralMistakes           a workflow or its input is wrong in several places
│   └── UnknownWorkflow           no workflow or version has this id
├── InvalidJson (ValueError)      a text is not JSON, or a value has no exact JSON form
├── UnknownRun (LookupError)      no run has this id
├── UnknownBudget (LookupError)   no standing budget has this scope and subject
├── OutOfScope                    the operation reaches further than the client's tenant
├── RunConflict                   an operation does not fit its run, or a key is in use
├── ServiceUnavailable            Postgres or Redis cannot be reached
│   └── EmbeddedServicesError     the built-in Postgres or Redis cannot be started
├── SchemaMismatch                this version needs another schema of the database
├── WaitTimeout (TimeoutError)    the caller's own timeout ended; the run goes on
├── NoEventLoop (RuntimeError)    an async function was called outside asyncio, such as under trio
└── AgentError                    an agent, or an attempt, ended without a whole result
    ├── MissingInput              a placeholder has no value (no call was made)
    ├── AttachmentRefused         a file cannot be sent with the prompt (no call was made)
    │   └── DownloadFailed        the file of a URL cannot be loaded now (retriable)
    ├── TooManyItems              the list of a for_each is too long (no call was made)
    ├── SubWorkflowRefused        the run of a sub-workflow cannot start (no call was made)
    ├── ConditionFailed           a condition cannot be evaluated (no call was made)
    ├── OutputInvalid             the output was refused, cut or empty, or does not fit its schema
    ├── UnknownModel              a model has no price or no provider (no call was made)
    ├── BudgetExceeded            the worst case does not fit a budget (no call was made)
    ├── ResultTooLarge            the output is over the limit (the cost is booked)
    ├── RecoveriesExhausted       the worker of the agent died or stopped too often
    ├── ToolError                 a tool is unknown, or failed in a way that the model cannot repair
    ├── UnknownFunction           the workers do not load a function, or a kind of agents
    ├── InputRefused              an input is missing, or has a type that a function does not take
    ├── OutputRefused             the returned value is not a JSON value
    ├── FunctionFailed            the function of an agent raised an error (retriable)
    ├── AddressRefused            a URL leads to a forbidden address (nothing was sent)
    │   └── HostUnknown           the host of a URL has no address now (retriable)
    ├── AgentTimeout              the agent's own time ran out (retriable)
    ├── CircuitOpen               calls to the model fail cluster-wide, and agents do not wait
    ├── ProviderError             a request to a provider failed
    │   ├── RateLimited           429, temporary (retriable); carries retry_after_s
    │   ├── QuotaExhausted        429 or 402: the account is out of money
    │   ├── Overloaded            503 or 529 (retriable)
    │   ├── ServerFailure         any other 5xx, or an answer outside the protocol (retriable)
    │   ├── ConnectionFailed      no answer, a broken stream, a request timeout (retriable)
    │   ├── AuthenticationFailed  401 or 403, or no key at all
    │   │   └── CredentialsFailed  the function of the credentials failed (retriable)
    │   └── BadRequest            400, 404, 413, 422: the request itself is refused
    └── NotRaised                 stored by a statement or a worker, without an exception
        ├── RunStopped            the run was cancelled, timed out or failed first
        ├── ConditionFalse        the agent's condition is false, so it is skipped
        ├── UpstreamFailed        a dependency of the agent has no output
        ├── WorkerLost            the worker of the attempt went silent (retriable)
        ├── WorkerStopped         the worker of the attempt was asked to stop (retriable)
        ├── ItemsFailed           items of the agent's for_each failed
        ├── ItemGone              a retry has made the list shorter, so the item is skipped
        ├── SubWorkflowFailed     the run of the sub-workflow failed or was cancelled
        └── SubWorkflowPartial    the run of the sub-workflow completed in part
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from app.domain.usage import Partial

#: The name of a final state of an agent, from ``app.domain.status``.
FinalState = Literal[
    "completed", "failed", "cancelled", "skipped", "rate_limited", "budget_exceeded"
]


#: Number of mistakes that one message shows.
MAX_MISTAKES_SHOWN = 20


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

    @property
    def mistakes(self) -> "Sequence[WorkflowError | UnknownModel]":
        """The mistakes that the message names: this error, if it names only one."""
        return (self,)


class WorkflowFileError(WorkflowError):
    """A workflow or configuration file is wrong at a known place.

    Attributes:
        file: Path as the user gave it.
        line: Line number from 1, or None if the whole file is meant.
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


class SeveralMistakes(WorkflowError):
    """A workflow or its input is wrong in several places; the message has one line for each.

    Args:
        mistakes: The mistakes, in the order of the checks.
    """

    def __init__(self, mistakes: "Sequence[WorkflowError | UnknownModel]") -> None:
        shown = [f"- {mistake}" for mistake in mistakes[:MAX_MISTAKES_SHOWN]]
        if (more := len(mistakes) - len(shown)) > 0:
            shown.append(f"- and {more:,} more")
        super().__init__("\n".join([f"{len(mistakes):,} mistakes:", *shown]))
        self._mistakes = tuple(mistakes)

    @property
    def mistakes(self) -> "Sequence[WorkflowError | UnknownModel]":
        """The mistakes, in the order of the checks."""
        return self._mistakes


class UnknownWorkflow(WorkflowError):
    """No workflow has this id."""


class InvalidJson(AgentChordError, ValueError):
    """A text is not JSON, or a value cannot be read or written as JSON without a change.

    Attributes:
        path: Path of the wrong part, such as ``output.items[0]``.
        problem: The problem of this part, and the remedy.
        line: Line of a text that is not JSON, from 1; otherwise None.
    """

    def __init__(
        self, path: str, problem: str, *, line: int | None = None, column: int | None = None
    ) -> None:
        place = "" if line is None else f" (line {line}, column {column})"
        super().__init__(f"{path} {problem}{place}".strip())
        self.path = path
        self.problem = problem
        self.line = line


class UnknownRun(AgentChordError, LookupError):
    """No run has this id."""


class UnknownBudget(AgentChordError, LookupError):
    """No standing budget has this scope and subject."""


class OutOfScope(AgentChordError):
    """The operation needs a wider scope than that of the client, whose scope is one tenant."""


class RunConflict(AgentChordError):
    """The operation does not fit the state of the run, or another run has the key of a new run."""


class ServiceUnavailable(AgentChordError):
    """Postgres or Redis cannot be reached; the message has the address, but never a password."""


class EmbeddedServicesError(ServiceUnavailable):
    """The built-in Postgres or Redis cannot be started here; the message has the remedy."""


class SchemaMismatch(AgentChordError):
    """The database's schema is older or newer than this version needs."""


class WaitTimeout(AgentChordError, TimeoutError):
    """The caller stopped waiting; the run itself goes on."""


class NoEventLoop(AgentChordError, RuntimeError):
    """The caller of an async function does not run on an asyncio event loop; nothing was done."""


class AgentError(AgentChordError):
    """The reason why an agent, or an attempt of an agent, ended without a whole result.

    A subclass gives its own facts as arguments of the class statement, and inherits all further
    facts.

    Attributes:
        retriable: Whether another attempt may help.
        final: The state in which the agent ends if the agent is not tried again.
        advice: Advice to the user, in one line.
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
    AgentError, advice="give the key in the run's input, or add a dependency that has this value"
):
    """A placeholder of the prompt has no value; no call was made."""


class AttachmentRefused(
    AgentError, advice="give another file, or correct the attachments of the agent or the workers"
):
    """A file cannot be sent with the prompt; no call was made."""


class DownloadFailed(
    AttachmentRefused, retriable=True, advice="check that the server of the URL can be reached"
):
    """The file of an attachment's URL cannot be loaded now; no call was made."""


class TooManyItems(AgentError, advice="give a shorter list, or raise engine.max_items"):
    """The list of a ``for_each`` has more elements than ``engine.max_items``; no call was made."""


class SubWorkflowRefused(
    AgentError, advice="read the error: it says why the inner workflow refuses the run"
):
    """The run of a sub-workflow cannot start, for example because the input does not fit."""


class ConditionFailed(
    AgentError, advice="correct the condition: has(a.b) tests whether a key exists"
):
    """An agent's condition is neither true nor false, or is over a limit; no call was made."""


class OutputInvalid(
    AgentError, advice="correct the schema or the mapping, raise max_tokens, or take another model"
):
    """The output does not fit the agent's schema, or lacks a part that the output_mapping names.

    The class also covers two further cases: the model refused to answer, or the answer was cut or
    empty and the agent does not accept a cut or empty answer.

    The agent is not retried, because the model has already seen the error message once and has
    tried to repair the output.
    """


class UnknownModel(AgentError, advice="give the model a price under costs, or correct its name"):
    """A model has no price, or the model's provider is not known; no call was made.

    Attributes:
        field: Path of the field with the model, such as ``agents[2].llm_config``, or None.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BudgetExceeded(
    AgentError,
    final="budget_exceeded",
    advice="raise the cost_limit or the budget (retry --cost-budget), or lower max_tokens",
):
    """The call's worst case does not fit a budget; no call was made."""


class ResultTooLarge(AgentError, advice="lower max_tokens, or raise engine.max_output_bytes"):
    """The output is over the size limit; the cost of the calls is booked."""


class RecoveriesExhausted(
    AgentError, advice="look for a tool or a lack of memory that ends the worker"
):
    """The workers that ran the agent died or stopped too often, so the agent is quarantined."""


class ToolError(
    AgentError, advice="list the tool's module under imports, repair the tool, or raise max_turns"
):
    """A tool is unknown, or failed in a way that the model cannot repair."""


class UnknownFunction(
    AgentError, advice="list the function's module under imports, or install its plugin"
):
    """The workers do not load an agent's function or an agent's kind."""


class InputRefused(
    AgentError, advice="give the key in the run's input, or correct the function's type hints"
):
    """An input is missing, or is not of the type that the agent's function takes."""


class OutputRefused(AgentError, advice="return a dict, list, string, number, bool or None"):
    """The value that an agent's function returned is not a JSON value."""


class FunctionFailed(
    AgentError,
    retriable=True,
    advice="repair the function; if no other attempt can help, raise an AgentError",
):
    """The function of an agent raised an exception other than an AgentError."""


class AddressRefused(
    AgentError, advice="correct the URL, or permit its address under allow_addresses"
):
    """A URL is not public, or leads to an address that is not public; nothing was sent."""


class HostUnknown(
    AddressRefused, retriable=True, advice="correct the URL, or check the name servers"
):
    """The host of a URL has no address now; nothing was sent."""


class AgentTimeout(
    AgentError, retriable=True, advice="raise the agent's timeout, or ask for less output"
):
    """The agent's timeout ran out during its work; the time of waiting for limits does not count.

    Attributes:
        called_s: Seconds that the last call had lasted; 0 if no call was under way.
    """

    def __init__(self, message: str, *, called_s: float = 0.0) -> None:
        super().__init__(message)
        self.called_s = called_s


class CircuitOpen(
    AgentError, advice="wait for the provider, or set circuit_breaker.when_open to wait"
):
    """Calls to the model fail cluster-wide, and agents do not wait; no call was made."""


class ProviderError(AgentError):
    """A request to a provider failed.

    Attributes:
        provider: Provider name, such as ``openai``.
        status: HTTP status; for an error inside a 200, the status for which the error stands; None
            if there was no answer.
        code: The provider's own error code or type, or None.
        request_id: The provider's id of the request, or None.
        retry_after_s: Seconds that the provider asked the client to wait, or None.
        headers: Rate-limit headers of the answer, by their names in lower case.
        reached: Whether the request may have reached the provider; if so, a cost entry is written.
        partial: The part of a streamed answer that came before the stream broke off, or None.
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
    advice="set rate_limits to the limits of the account, which agentchord limits shows",
):
    """The provider answered with a temporary 429."""


class QuotaExhausted(ProviderError, advice="pay, or raise the account's spend limit"):
    """A 429 or 402: the account's money or quota is used up, and waiting does not help."""


class Overloaded(ProviderError, retriable=True, advice="wait, or use another model"):
    """The provider is overloaded, or has no capacity: a 503, a 529, or a 429 that says so."""


class ServerFailure(
    ProviderError,
    retriable=True,
    advice="wait; if the error stays, look at the base URL and the provider's status page",
):
    """The provider answered with another 5xx, with Anthropic's 409, or against its protocol."""


class ConnectionFailed(
    ProviderError, retriable=True, advice="check the network, the proxy and the base URL"
):
    """No whole answer came: a connection failed, a stream broke off, or the request timed out."""


class AuthenticationFailed(
    ProviderError, advice="set the provider's API key, and give it the necessary rights"
):
    """The provider answered with a 401 or 403, or no API key is configured."""


class CredentialsFailed(
    AuthenticationFailed,
    retriable=True,
    advice="repair the function of the credentials, and test it with agentchord doctor",
):
    """The function of a provider's ``credentials`` raised an error or hung; nothing was sent."""


class BadRequest(
    ProviderError, advice="correct the prompt, the model or its parameters, as the message says"
):
    """The provider refused the request itself, with a 400, 404, 413 or 422."""


class NotRaised(AgentError):
    """An agent, or an attempt, ended for a reason that is stored, but that no code raises."""


class RunStopped(
    NotRaised, final="cancelled", advice="nothing is wrong with the agent: retry the run"
):
    """The run was cancelled, timed out or failed before the agent had ended."""


class ConditionFalse(
    NotRaised, final="skipped", advice="correct the condition, if the agent was meant to run"
):
    """The agent's condition is false, so the agent was skipped; the agent's output is null."""


class UpstreamFailed(
    NotRaised, final="cancelled", advice="repair the dependency, or set accept_missing_inputs"
):
    """A dependency of the agent did not complete, so the agent was not started."""


class WorkerLost(
    NotRaised,
    retriable=True,
    advice="if it happens again, look for the cause that ended the worker",
):
    """The worker of an attempt went silent; another attempt follows, which is not a retry."""


class WorkerStopped(
    NotRaised,
    retriable=True,
    advice="if it happens again and again, look for code that ends its own process",
):
    """The worker was asked to stop during an attempt's calls; another attempt follows."""


class ItemsFailed(NotRaised, advice="look at the items that failed"):
    """All items of a ``for_each`` failed, or one item failed and the agent needs all items."""


class ItemGone(NotRaised, final="skipped", advice="nothing is wrong: look at the list"):
    """A retry has made the list of a ``for_each`` shorter, and the list has this item no more."""


class SubWorkflowFailed(NotRaised, advice="look at the run of the sub-workflow"):
    """The run of a sub-workflow failed; if that run was cancelled, the agent is cancelled, too."""


class SubWorkflowPartial(
    NotRaised, final="completed", advice="look at the run of the sub-workflow, and retry this run"
):
    """The run of a sub-workflow completed in part; some inner agents have the output null."""


def error_classes(base: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """Yield every class of the tree from ``base`` on."""
    yield base
    for each in base.__subclasses__():
        yield from error_classes(each)


def error_named(name: str | None) -> type[AgentError] | None:
    """Return the class with this name, or None if no class of the tree has this name."""
    return next((kind for kind in error_classes() if kind.__name__ == name), None)

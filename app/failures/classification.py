"""What kind of failure an error is: a class that knows whether trying again may help.

The error tree of ``app.errors`` is the classification: SDKs, HTTP answers and tools are mapped to
it where they are met. Here are the names that are stored with attempts, and what to do about each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from app.domain.status import AgentStatus
from app.errors import (
    AddressRefused,
    AgentError,
    AgentTimeout,
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    CircuitOpen,
    ConditionFailed,
    ConnectionFailed,
    FunctionFailed,
    HostUnknown,
    InputRefused,
    MissingInput,
    OutputInvalid,
    OutputRefused,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RecoveriesExhausted,
    ResultTooLarge,
    ServerFailure,
    SubWorkflowRefused,
    ToolError,
    TooManyItems,
    UnknownFunction,
    UnknownModel,
)

ADVICE: dict[type[AgentError], str] = {
    AgentError: "read the message",
    TooManyItems: "give a shorter list, or raise engine.max_items",
    SubWorkflowRefused: "read the error: it is what the inner workflow does not accept",
    MissingInput: "give the key in the run's input, or the agent a dependency that yields it",
    ConditionFailed: "correct the condition: has(a.b) asks whether there is such a key",
    OutputInvalid: "correct the schema or the mapping, raise max_tokens, or take another model",
    UnknownModel: "give it a price under costs, or correct the model's name",
    BudgetExceeded: "raise the budget, or lower max_tokens",
    ResultTooLarge: "lower max_tokens, or raise engine.max_output_bytes",
    RecoveriesExhausted: "look for what ends the worker in its tools, or its memory",
    ToolError: "list the tool's module under imports, repair it, or raise max_turns",
    UnknownFunction: "list the function's module under imports, or install its plugin",
    InputRefused: "give the key in the run's input, or correct the function's type hints",
    OutputRefused: "return a dict, list, text, number, bool or None",
    FunctionFailed: "repair the function; what no other attempt can help, raise as an AgentError",
    AddressRefused: "correct the URL, or permit its address under allow_addresses",
    HostUnknown: "correct the URL, or look at the name servers",
    AgentTimeout: "raise the agent's timeout, or ask for less output",
    CircuitOpen: "wait for the provider, or let agents wait: circuit_breaker.when_open",
    ProviderError: "read the message",
    RateLimited: "set rate_limits to what the account has",
    QuotaExhausted: "pay, or raise the account's spend limit",
    Overloaded: "wait; or use another model",
    ServerFailure: "wait; if it stays, look at the base URL and the provider's status page",
    ConnectionFailed: "check the network, the proxy and the base URL",
    AuthenticationFailed: "set the provider's API key, and the rights that it has",
    BadRequest: "correct the prompt, the model or its parameters: the provider says which",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureClass:
    """A kind of failure.

    Attributes:
        name: As stored in ``agent_runs.error_class`` and ``attempts.error_class``.
        retriable: Whether another attempt may help.
        final: The state of an agent that ends with it.
        advice: What to do about it.
    """

    name: str
    retriable: bool
    final: AgentStatus
    advice: str


def error_classes(base: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """Every class of the tree from ``base`` on."""
    yield base
    for each in base.__subclasses__():
        yield from error_classes(each)


def classify(error: BaseException | type[BaseException]) -> FailureClass:
    """The class of an error; what no adapter has mapped is a defect, and not retriable."""
    kind = error if isinstance(error, type) else type(error)
    if not issubclass(kind, AgentError):
        return FailureClass(
            name=kind.__name__,
            retriable=False,
            final=AgentStatus.FAILED,
            advice="a defect: the worker's log has the traceback",
        )
    advice = next(ADVICE[cls] for cls in kind.__mro__ if cls in ADVICE)
    return FailureClass(
        name=kind.__name__, retriable=kind.retriable, final=_final(kind), advice=advice
    )


def class_named(name: str | None) -> FailureClass | None:
    """The class that is stored under a name, or None if no error of the tree has it."""
    return next((classify(kind) for kind in error_classes() if kind.__name__ == name), None)


def _final(kind: type[AgentError]) -> AgentStatus:
    if issubclass(kind, BudgetExceeded):
        return AgentStatus.BUDGET_EXCEEDED
    if issubclass(kind, RateLimited):
        return AgentStatus.RATE_LIMITED
    return AgentStatus.FAILED

"""What kind of failure an error is: whether another attempt may help, and how its agent ends.

The error tree of ``app.errors`` is the classification: errors of SDKs, HTTP answers and tools are
mapped to it where they are met, and what follows from each is a fact of its class.
"""

from dataclasses import dataclass

from app.domain.status import AgentStatus
from app.errors import AgentError, error_named


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureClass:
    """A kind of failure.

    Attributes:
        name: As stored in ``agent_runs.error_class`` and ``attempts.error_class``.
        retriable: Whether another attempt may help.
        final: The state of an agent that ends with it.
    """

    name: str
    retriable: bool
    final: AgentStatus


def classify(error: BaseException | type[BaseException]) -> FailureClass:
    """Return the class of an error; one that no adapter has mapped is a defect, not retriable."""
    kind = error if isinstance(error, type) else type(error)
    agent_error = kind if issubclass(kind, AgentError) else AgentError
    return FailureClass(
        name=kind.__name__,
        retriable=agent_error.retriable,
        final=AgentStatus(agent_error.final),
    )


def class_named(name: str | None) -> FailureClass | None:
    """Return the class that is stored under a name, or None if no error of the tree has it."""
    kind = error_named(name)
    return None if kind is None else classify(kind)

"""Decides whether another attempt may help after an error, and in which state the agent ends.

The classes of ``app.errors`` are the classification. If code catches an error of an SDK, of an HTTP
answer or of a tool, the code raises an error of these classes instead. Each class has attributes
that state its consequences.
"""

from dataclasses import dataclass
from typing import Any

from app.concurrency.error_texts import class_name
from app.domain.status import AgentStatus
from app.errors import AgentError, error_named


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureClass:
    """A kind of failure.

    Attributes:
        name: Name that is stored in ``agent_runs.error_class`` and ``attempts.error_class``.
        retriable: Whether another attempt may help.
        final: The state of an agent that ends with this failure.
    """

    name: str
    retriable: bool
    final: AgentStatus


def classify(error: BaseException | type[BaseException]) -> FailureClass:
    """Return the class of an error; an error outside ``app.errors`` is not retriable."""
    kind = error if isinstance(error, type) else type(error)
    if not issubclass(kind, AgentError):
        name = kind.__name__ if isinstance(error, type) else class_name(error)
        return FailureClass(name=name, retriable=False, final=AgentStatus.FAILED)
    # An error of a user's own class has the facts of this class as attributes of the object.
    facts: Any = error
    return FailureClass(
        name=facts.class_name if "class_name" in vars(error) else kind.__name__,
        retriable=facts.retriable,
        final=AgentStatus(facts.final),
    )


def class_named(name: str | None) -> FailureClass | None:
    """Return the class with a stored name, or None if ``app.errors`` has no such name."""
    kind = error_named(name)
    return None if kind is None else classify(kind)

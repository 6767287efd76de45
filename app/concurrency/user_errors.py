"""The failure of user code, as an ordinary error whose every part is safe to read."""

from typing import Any, Self, get_args

from app import errors
from app.concurrency.error_texts import class_name, message_of, traceback_of
from app.domain.status import AgentStatus
from app.errors import AgentError, FinalState, NotRaised

#: The states in which an error may end an agent. In no other state an agent has failed.
FAILURES = tuple(state for state in get_args(FinalState) if AgentStatus(state).is_failure)


class UserCodeFailed(Exception):
    """User code raised an exception.

    The message has the class and the message of that exception. All parts are read when this error
    is made. So a slow or failing method of a user's exception delays only the thread of user code.

    Attributes:
        error: The exception of the user code; its methods may do anything. None after ``seal``.
        class_name: Name of its class, which can be shown.
        message: Its message.
        agent_error: A plain copy of the exception if it is an ``AgentError`` that code may raise;
            else None.
        traceback: The traceback of the exception as a text; None before ``seal``.
    """

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error
        self.traceback: str | None = None
        self.class_name = class_name(error)
        self.message = message_of(error)
        super().__init__(f"{self.class_name}: {self.message}".removesuffix(": "))
        self.agent_error = _plain(error, self.class_name, self.message)

    def seal(self) -> Self:
        """Let the exception go, and keep its traceback as a text; the thread of user code calls it.

        The exception holds the variables of the code that raised it. Its methods, and the end of
        these variables, may take any time, which no other thread must spend.
        """
        if self.error is not None:
            self.traceback = traceback_of(self.error)
            self.error = self.__cause__ = self.__context__ = self.__traceback__ = None
        return self


def _plain(error: BaseException, name: str, message: str) -> AgentError | None:
    """Return an error of an own class with the facts of a user's error, or None."""
    kind = type(error)
    # A reason that no code raises is a reason for AgentChord alone, such as "the run was stopped".
    if not issubclass(kind, AgentError) or issubclass(kind, NotRaised):
        return None
    try:
        own: type[AgentError] = next(each for each in type(error).__mro__ if _is_own(each))
        facts = _facts(error, is_own=own is type(error), name=name)
    except BaseException:  # noqa: BLE001  a metaclass of a user may raise any exception
        own, facts = AgentError, {"class_name": name}
    plain = own.__new__(own)  # the constructors of the classes take different arguments
    plain.args = (message,)
    vars(plain).update(facts)
    return plain


def _is_own(kind: type) -> bool:
    return issubclass(kind, AgentError) and vars(errors).get(kind.__name__) is kind


def _facts(error: Any, *, is_own: bool, name: str) -> dict[str, Any]:
    """Return the facts of an error that decide what follows; see ``app.failures``."""
    facts: dict[str, Any] = {}
    if not is_own:
        final = type(error).final
        facts = {
            "class_name": name,
            "retriable": type(error).retriable is True,
            "final": final if final in FAILURES else AgentError.final,
        }
    if isinstance(error, errors.ProviderError):
        asked_s = vars(error).get("retry_after_s")
        facts["retry_after_s"] = asked_s if type(asked_s) in (int, float) else None
    return facts

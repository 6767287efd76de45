"""Every part of a failure of user code can be read, stored and decided on, whatever its class."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.concurrency.error_texts import MAX_NAME_CHARS, class_name
from app.concurrency.user_code import UserCodeFailed
from app.domain.retry import RetryPolicy
from app.domain.status import AgentStatus
from app.errors import AgentError, FunctionFailed, RateLimited, ToolError, error_classes
from app.failures.classification import classify
from app.failures.decisions import Fail, Retry, decide

POLICY = RetryPolicy(max_retries=1)


class Odd(type):
    """A metaclass whose attributes fail."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("retriable", "final", "__name__", "__mro__"):
            raise KeyboardInterrupt
        return super().__getattribute__(name)


def with_metaclass() -> AgentError:
    error: AgentError = Odd("OddError", (AgentError,), {})("odd")
    return error


def with_facts(**facts: Any) -> Callable[[], AgentError]:
    return lambda: type("OwnError", (AgentError,), facts)("own")


def named(name: str) -> AgentError:
    error: AgentError = type("Named", (AgentError,), {})("own")
    type(error).__name__ = name
    return error


def with_text() -> AgentError:
    class Text:
        def __str__(self) -> str:
            raise SystemExit

    return AgentError(Text())


def with_attribute() -> AgentError:
    error = RateLimited("slow down", provider="acme", retry_after_s=7.0)
    vars(error).update(retriable="perhaps", final=object(), class_name=object())
    return error


ODD: dict[str, Callable[[], AgentError]] = {
    "metaclass": with_metaclass,
    "retriable": with_facts(retriable=object()),
    "final": with_facts(final="nonsense"),
    "unhashable": with_facts(final=[]),
    "text": with_text,
    "attribute": with_attribute,
}


@pytest.mark.parametrize("odd", ODD)
def test_an_agent_error_with_odd_facts_ends_its_attempt_by_a_decision(odd: str) -> None:
    error = UserCodeFailed(ODD[odd]()).agent_error

    assert error is not None
    decided = decide(error, retries=0, policy=POLICY)
    assert decided == Fail(status=AgentStatus.FAILED) or isinstance(decided, Retry)
    assert str(error)
    assert classify(error).name.isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=1000))
def test_a_name_of_a_class_is_short_and_can_be_shown(name: str) -> None:
    error = UserCodeFailed(named(name)).agent_error

    assert error is not None
    assert 0 < len(classify(error).name) <= MAX_NAME_CHARS
    assert classify(error).name.isprintable()
    assert class_name(named(name)) == classify(error).name


def test_the_facts_of_a_users_class_are_kept() -> None:
    class Busy(ToolError, retriable=True, final="rate_limited"):
        """Try again."""

    class Slow(RateLimited):
        """Try again later."""

    busy, slow = (
        UserCodeFailed(Busy("busy")),
        UserCodeFailed(Slow("slow", provider="acme", retry_after_s=90.0)),
    )

    assert isinstance(busy.agent_error, ToolError)
    assert (classify(busy.agent_error).name, str(busy.agent_error)) == ("Busy", "busy")
    assert isinstance(decide(busy.agent_error, retries=0, policy=POLICY), Retry)
    assert decide(busy.agent_error, retries=1, policy=POLICY) == Fail(
        status=AgentStatus.RATE_LIMITED
    )
    assert slow.agent_error is not None
    retry = decide(slow.agent_error, retries=0, policy=POLICY)
    assert isinstance(retry, Retry)
    assert retry.after_s >= 90.0


def test_no_error_of_user_code_ends_its_agent_in_a_state_that_is_no_failure() -> None:
    for kind in list(error_classes()):
        own: type[AgentError] = type("Own", (kind,), {}, final="completed")
        for each in (kind, own):
            failed = UserCodeFailed(each.__new__(each))
            decided = decide(
                failed.agent_error or FunctionFailed(str(failed)), retries=9, policy=POLICY
            )

            assert isinstance(decided, Fail), each
            assert decided.status.is_failure, each


def test_an_error_outside_the_tree_has_no_agent_error() -> None:
    class Liar(Exception):
        @property  # type: ignore[misc]
        def __class__(self) -> NoReturn:  # type: ignore[override]
            raise SystemExit

    assert UserCodeFailed(Liar()).agent_error is None
    assert UserCodeFailed(ValueError("x")).agent_error is None

import inspect
import re

import pytest

from app import errors
from app.errors import (
    AgentChordError,
    ProviderError,
    WorkflowError,
    WorkflowFileError,
    error_classes,
)

LINE = re.compile(r"^((?:│   |    )*)(?:├── |└── )?(\w+)(?: \((\w+)\))?(?:  +.*)?$")


def drawn_tree() -> dict[str, str]:
    """Name of each error in the module's docstring -> names of its bases, as drawn there."""
    tree: dict[str, str] = {}
    path: list[str] = []
    drawing = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[-1]
    for line in drawing.splitlines():
        match = LINE.match(line)
        assert match, f"the drawing of the error tree has the odd line {line!r}"
        branches, name, builtin = match.groups()
        depth = len(branches) // 4 + ("── " in line)
        path = [*path[:depth], name]
        tree[name] = " ".join([path[-2] if depth else "Exception", *([builtin] if builtin else [])])
    return tree


def test_the_docstring_draws_exactly_the_classes_there_are() -> None:
    classes = {
        name: " ".join(base.__name__ for base in value.__bases__)
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, AgentChordError)
    }

    drawn = drawn_tree()

    assert drawn == classes


def test_the_docstring_names_the_retriable_errors() -> None:
    drawn = {
        line.split("──")[-1].split()[0]
        for line in (errors.__doc__ or "").splitlines()
        if "(retriable)" in line
    }

    retriable = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and getattr(value, "retriable", False)
    }

    assert drawn == retriable


def test_every_error_of_an_agent_gives_advice_of_its_own() -> None:
    without = [
        kind.__name__
        for kind in error_classes()
        if "advice" not in vars(kind) and not kind.__subclasses__()
    ]

    assert without == []
    assert all("\n" not in kind.advice for kind in error_classes())


def test_every_error_says_what_it_is() -> None:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, AgentChordError):
            assert value.__doc__


@pytest.mark.parametrize(
    ("line", "field", "text"),
    [
        (None, None, "flow.yaml: is too large"),
        (7, None, "flow.yaml:7: is too large"),
        (7, "agents[2].priority", "flow.yaml:7: agents[2].priority: is too large"),
    ],
)
def test_a_workflow_file_error_begins_with_the_place(
    line: int | None, field: str | None, text: str
) -> None:
    error = WorkflowFileError("is too large", file="flow.yaml", line=line, field=field)

    assert str(error) == text
    assert (error.file, error.line, error.field) == ("flow.yaml", line, field)


def test_a_workflow_error_is_a_value_error_as_callers_of_the_engine_expect() -> None:
    error = WorkflowError("no agents", field="agents")

    assert isinstance(error, ValueError)
    assert error.field == "agents"


def test_a_provider_error_carries_what_the_answer_said() -> None:
    error = ProviderError("no", provider="openai", status=429, retry_after_s=1.5)

    assert (error.provider, error.status, error.retry_after_s) == ("openai", 429, 1.5)
    assert error.headers == {}
    assert error.reached

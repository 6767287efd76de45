"""Parameters of the type ToolContext: found by their type hints, and hidden from the model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Annotated, Any, Optional

import pytest

from app import ToolContext, tool
from app.errors import WorkflowError
from app.tools.tool import BuiltinTool, Tool
from tests.support.modules import forget_modules

pytestmark = pytest.mark.anyio

CONTEXT = ToolContext(
    run_id="r", workflow="w", agent="a", attempt=2, idempotency_key="k", tenant="acme", index=3
)


def plain(order: str, context: ToolContext) -> str:
    return f"{order} {context.idempotency_key} {threading.current_thread().name}"


async def waits(order: str, whatever: ToolContext) -> str:
    return f"{order} {whatever.idempotency_key} {threading.current_thread().name}"


def first(context: ToolContext, order: str) -> str:
    return f"{order} {context.idempotency_key}"


def optional(order: str, context: Optional[ToolContext] = None) -> str:  # noqa: UP045
    return f"{order} {context.idempotency_key if context else 'no key'}"


def union(order: str, *, context: ToolContext | None = None) -> str:
    return f"{order} {context.idempotency_key if context else 'no key'}"


def annotated(order: str, context: Annotated[ToolContext | None, "the call"]) -> str:
    return f"{order} {context.idempotency_key if context else 'no key'}"


def quoted(order: str, context: "ToolContext") -> str:  # noqa: UP037
    return f"{order} {context.idempotency_key}"


FORMS = (plain, waits, first, optional, union, annotated, quoted)


@pytest.mark.parametrize("function", FORMS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("kind", [Tool, BuiltinTool])
async def test_a_tool_gets_the_context_and_the_model_does_not_see_it(
    function: Callable[..., Any], kind: type[Tool]
) -> None:
    made = kind(function)

    output = await made.call('{"order": "7"}', context=CONTEXT)

    assert output.text.startswith("7 k")
    assert not output.is_error
    assert made.parameters["properties"].keys() == {"order"}
    assert made.parameters["required"] == ["order"]


@pytest.mark.parametrize("function", FORMS, ids=lambda function: function.__name__)
async def test_a_model_cannot_give_the_context(function: Callable[..., Any]) -> None:
    made = Tool(function)
    name = made.context_parameter

    for given in ('{"idempotency_key": "mine"}', "null", '"mine"'):
        output = await made.call(f'{{"order": "7", "{name}": {given}}}', context=CONTEXT)

        assert output.is_error
        assert output.text.startswith(f"{made.name} was not run: {name}: Extra inputs")


@pytest.mark.parametrize("function", [optional, union])
async def test_without_a_context_a_parameter_keeps_its_default(
    function: Callable[..., Any],
) -> None:
    assert await Tool(function).call('{"order": "7"}') == ("7 no key", False)


async def test_a_tool_that_is_only_the_context_has_no_arguments() -> None:
    @tool
    def who(context: ToolContext) -> str:
        return f"{context.tenant} {context.agent} {context.attempt} {context.index}"

    assert who.parameters["properties"] == {}
    assert await who.call("", context=CONTEXT) == ("acme a 2 3", False)


async def test_every_try_of_a_call_has_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tools.tool.RETRY_DELAY_S", 0)
    keys: list[str] = []

    @tool(retries=2)
    def flaky(context: ToolContext) -> str:
        keys.append(context.idempotency_key)
        raise ConnectionError("gone")

    await flaky.call("{}", context=CONTEXT)

    assert keys == ["k"] * 3


def test_two_contexts_are_refused_when_the_tool_is_made() -> None:
    with pytest.raises(WorkflowError, match="'one' and 'other' are both a ToolContext: keep one"):

        @tool
        def two(one: ToolContext, order: str, other: ToolContext | None = None) -> None: ...


@pytest.mark.parametrize("hint", ["list[ToolContext]", "ToolContext | str"])
def test_a_context_inside_another_type_is_refused(hint: str) -> None:
    def nested(context: Any) -> None: ...

    nested.__annotations__["context"] = hint

    with pytest.raises(WorkflowError, match="cannot be a part of another type"):
        Tool(nested).parameters  # noqa: B018


def test_a_context_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        CONTEXT.idempotency_key = "other"  # type: ignore[misc]


MODULE = """\
from __future__ import annotations
from typing import TYPE_CHECKING
from app import tool
if TYPE_CHECKING:
    from app import ToolContext

@tool
def pay(order: str, context: ToolContext) -> str:
    return context.idempotency_key
"""
OWN = """\
from __future__ import annotations
from app import tool
from pydantic import BaseModel

class ToolContext(BaseModel):
    note: str

@tool
def pay(order: str, context: ToolContext) -> str:
    return context.note
"""


@pytest.fixture
def module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def written(text: str) -> Any:
        (tmp_path / "context_tools.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        return __import__("context_tools")

    yield written
    forget_modules(tmp_path)


async def test_the_class_may_be_imported_for_type_checkers_only(module: Any) -> None:
    pay = module(MODULE).pay

    assert pay.parameters["properties"].keys() == {"order"}
    assert await pay.call('{"order": "7"}', context=CONTEXT) == ("k", False)


async def test_another_class_of_the_same_name_is_an_argument(module: Any) -> None:
    pay = module(OWN).pay

    assert pay.parameters["properties"].keys() == {"order", "context"}
    assert await pay.call('{"order": "7", "context": {"note": "x"}}') == ("x", False)

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from app.errors import ConfigurationError, ToolError, WorkflowError
from app.tools.registry import ToolRegistry
from app.tools.tool import Tool, ToolOutput, tool
from tests.support.modules import forget_modules
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio


class Line(BaseModel):
    item: str
    amount: int = 1


@tool
def total(prices: list[float], currency: Literal["EUR", "USD"] = "EUR") -> str:
    """Add prices up.

    The sum is exact to the cent.

    Args:
        prices: What to add,
            in any order.
        currency (str): Of all of them.

    Returns:
        The sum with its currency.
    """
    return f"{sum(prices):.2f} {currency}"


@tool(name="order_lines", timeout_s=5, idempotent=True)
async def lines(
    order: Line, on: date, note: Annotated[str, Field(description="Free text")] = ""
) -> Any:
    """Lines of an order."""
    await asyncio.sleep(0)
    return {"item": order.item, "amount": order.amount, "on": on, "note": note}


@tool
def awkward(schema: int, model_config: int = 1, _private: int = 2, json: str = "") -> int:
    return schema + model_config + _private


def add(one: int, other: int) -> int:
    return one + other


def test_a_tool_is_still_the_function_it_was() -> None:
    assert total([1.5, 2]) == "3.50 EUR"
    assert getattr(total, "__name__", None) == "total"
    assert total.__doc__ is not None
    assert "Add prices up" in total.__doc__


def test_a_tool_describes_itself_from_its_docstring_and_hints() -> None:
    assert total.name == "total"
    assert total.description == "Add prices up.\n\nThe sum is exact to the cent."
    assert total.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["prices"],
        "properties": {
            "prices": {
                "type": "array",
                "items": {"type": "number"},
                "description": "What to add, in any order.",
            },
            "currency": {
                "enum": ["EUR", "USD"],
                "type": "string",
                "default": "EUR",
                "description": "Of all of them.",
            },
        },
    }


def test_options_of_the_decorator_are_kept() -> None:
    assert (lines.name, lines.timeout_s, lines.idempotent) == ("order_lines", 5, True)
    assert lines.parameters["properties"]["note"]["description"] == "Free text"
    assert json.loads(json.dumps(lines.parameters)) == lines.parameters


def test_a_reference_is_what_workers_need_to_find_the_tool() -> None:
    assert total.reference() == {
        "name": "total",
        "import": f"{__name__}:total",
        "description": total.description,
        "parameters": total.parameters,
    }


async def test_a_sync_function_runs_in_a_thread_and_its_text_is_returned_as_it_is() -> None:
    @tool
    def where() -> str:
        """Say where it runs."""
        return threading.current_thread().name

    assert await where.call("{}") == ToolOutput("tool", is_error=False)
    assert await total.call('{"prices": [1, "2.5"]}') == ("3.50 EUR", False)


async def test_an_async_function_gets_python_values_and_answers_in_json() -> None:
    output = await lines.call('{"order": {"item": "desk"}, "on": "2026-11-21"}')

    assert not output.is_error
    assert json.loads(output.text) == {
        "item": "desk", "amount": 1, "on": "2026-11-21", "note": "",
    }  # fmt: skip


async def test_no_arguments_at_all_are_an_empty_object() -> None:
    @tool
    def ping() -> None:
        """Do nothing."""

    assert await ping.call("") == ("null", False)


async def test_arguments_may_have_the_names_of_pydantics_own_methods() -> None:
    assert await awkward.call('{"schema": 1, "_private": 5}') == ("7", False)
    assert "json" in awkward.parameters["properties"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("not json", "is not valid JSON"),
        ("[1]", "object"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"prices": [1, NaN]}', "arguments.prices[1] is NaN, which is not JSON"),
        ('{"prices": [1e400]}', "arguments.prices[0] is too large a number"),
        ('{"prices": ["many"]}', "prices.0"),
        ('{"currency": "EUR"}', "prices: Field required"),
        ('{"prices": [1], "colour": "red"}', "colour: Extra inputs"),
    ],
)
async def test_wrong_arguments_are_explained_to_the_model(arguments: str, complaint: str) -> None:
    text, is_error = await total.call(arguments)

    assert is_error
    assert complaint in text
    assert len(text) < 500


async def test_what_a_tool_raises_is_told_to_the_model() -> None:
    @tool
    def divide(by: int) -> float:
        """Divide one."""
        return 1 / by

    @tool
    async def leave() -> None:
        """End the process, as it thinks."""
        sys.exit(3)

    @tool
    def iterate() -> None:
        """Raise what a future cannot carry."""
        raise StopIteration

    assert await divide.call('{"by": 0}') == (
        "divide failed: ZeroDivisionError: division by zero",
        True,
    )
    assert await leave.call("{}") == ("leave failed: SystemExit: 3", True)
    assert await iterate.call("{}") == ("iterate failed: StopIteration", True)


async def test_a_tool_error_ends_the_agent_and_not_just_the_call() -> None:
    @tool
    def database() -> None:
        """Ask the database."""
        raise ToolError("the database is gone")

    with pytest.raises(ToolError, match="gone"):
        await database.call("{}")


async def test_a_result_without_a_json_form_is_an_error() -> None:
    @tool
    def thing() -> object:
        """Give something odd."""
        return object()

    text, is_error = await thing.call("{}")

    assert is_error
    assert "PydanticSerializationError" in text


async def test_a_slow_tool_is_given_up_but_keeps_no_thread_waiting() -> None:
    release = threading.Event()

    @tool(timeout_s=0.05)
    def slow() -> None:
        """Wait."""
        release.wait(scaled(30))

    output = await slow.call("{}")
    release.set()

    assert output == ("slow took longer than 0.05 s", True)


async def test_a_cancelled_call_returns_at_once() -> None:
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @tool
    def slow() -> None:
        """Wait."""
        loop.call_soon_threadsafe(started.set)
        release.wait(scaled(30))

    call = asyncio.create_task(slow.call("{}"))
    await asyncio.wait_for(started.wait(), scaled(10))
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 1)
    release.set()


def test_a_hanging_tool_does_not_keep_the_process_alive() -> None:
    program = """
import asyncio, threading
from app.tools.tool import tool

@tool(timeout_s=0.05)
def hang():
    threading.Event().wait(300)

print(asyncio.run(hang.call("{}")).text)
"""

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=True,
    )

    assert done.stdout == "hang took longer than 0.05 s\n"


def test_functions_that_workers_cannot_import_are_refused_when_they_are_stored() -> None:
    @tool
    def local(a: int) -> int:
        return a

    main = tool(add)
    main.function.__module__, module = "__main__", main.function.__module__

    for refused in (local, tool(lambda: 1), main):
        with pytest.raises(WorkflowError, match=r"my_tools\.py.*imports:"):
            refused.reference()
    add.__module__ = module


def test_a_method_is_refused_too() -> None:
    class Basket:
        @tool
        @staticmethod
        def fill(a: int) -> int:
            return a

    with pytest.raises(WorkflowError, match=r"Basket\.fill"):
        Basket.fill.reference()


def test_what_cannot_be_told_to_a_model_is_refused_at_once() -> None:
    def untyped(a, b: int) -> None: ...  # type: ignore[no-untyped-def]
    def variable(*numbers: int) -> None: ...
    def odd(a: threading.Lock) -> None: ...
    def unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(WorkflowError, match="'a' has no type hint"):
        tool(untyped)
    with pytest.raises(WorkflowError, match=r"'\*numbers: int'"):
        tool(variable)
    with pytest.raises(WorkflowError, match="'two words'"):
        tool(name="two words")(add)
    with pytest.raises(WorkflowError, match="functions"):
        tool("look_up")  # type: ignore[call-overload]
    with pytest.raises(WorkflowError, match="no schema"):
        tool(odd).parameters  # noqa: B018
    with pytest.raises(WorkflowError, match="Nowhere"):
        tool(unknown).parameters  # noqa: B018


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported by this test only."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget_modules(tmp_path)


SEARCH = """
from app.tools.tool import tool

@tool
def look_up(key: str) -> str:
    "Look something up."
    return key.upper()
"""


def test_the_registry_finds_a_tool_by_reference_name_and_path(modules: Path) -> None:
    (modules / "shop_tools.py").write_text(SEARCH)
    registry = ToolRegistry(["shop_tools"])

    found = registry.resolve("look_up")

    assert isinstance(found, Tool)
    assert found("a") == "A"
    assert registry.resolve(found.reference()) is found
    assert registry.resolve("shop_tools:look_up") is found


def test_a_tool_that_a_listed_module_passes_on_is_found(modules: Path) -> None:
    (modules / "inner_tools.py").write_text(SEARCH)
    (modules / "outer_tools.py").write_text(
        "from inner_tools import look_up\n__all__ = ['look_up']"
    )

    registry = ToolRegistry(["outer_tools"])

    assert registry.resolve({"name": "look_up", "import": "inner_tools:look_up"}).name == "look_up"


@pytest.mark.parametrize(
    "text", ["from inner_tools import look_up", "from inner_tools import look_up as _look_up"]
)
def test_a_tool_that_a_module_only_imports_or_hides_is_not_found(modules: Path, text: str) -> None:
    (modules / "inner_tools.py").write_text(SEARCH)
    (modules / "outer_tools.py").write_text(text)

    with pytest.raises(ToolError, match="there is no tool 'look_up'"):
        ToolRegistry(["outer_tools"]).resolve("look_up")


def test_an_unknown_tool_is_refused_with_a_proposal(modules: Path) -> None:
    (modules / "shop_tools.py").write_text(SEARCH)

    with pytest.raises(ToolError, match=r"there is no tool 'lookup'.*did you mean 'look_up'\?"):
        ToolRegistry(["shop_tools"]).resolve("lookup")
    with pytest.raises(ToolError, match="load none"):
        ToolRegistry().resolve("lookup")


def test_a_stored_reference_cannot_make_a_worker_import_what_is_not_listed(modules: Path) -> None:
    (modules / "secret_tools.py").write_text("raise SystemExit('was imported')")

    with pytest.raises(ToolError, match="'secret_tools' under imports:"):
        ToolRegistry().resolve({"name": "a", "import": "secret_tools:a"})


def test_a_module_that_cannot_be_imported_is_named(modules: Path) -> None:
    (modules / "broken_tools.py").write_text("1 / 0")

    with pytest.raises(ConfigurationError, match=r"'broken_tools'.*ZeroDivisionError"):
        ToolRegistry(["broken_tools"]).load()
    (modules / "leaving_tools.py").write_text("raise SystemExit(1)")
    with pytest.raises(ConfigurationError, match=r"'leaving_tools'.*SystemExit"):
        ToolRegistry(["leaving_tools"]).load()
    with pytest.raises(ConfigurationError, match=r"'no_such_tools'.*PYTHONPATH"):
        ToolRegistry(["no_such_tools"]).load()


def test_two_tools_of_one_name_are_refused(modules: Path) -> None:
    (modules / "one_tools.py").write_text(SEARCH)
    (modules / "two_tools.py").write_text(SEARCH)

    with pytest.raises(ConfigurationError, match="one_tools:look_up and two_tools:look_up"):
        ToolRegistry(["one_tools", "two_tools"]).load()

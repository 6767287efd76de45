"""Tools that fail, hang, return too much or raise odd errors harm only their own call."""

import asyncio
import threading
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from app.errors import WorkflowError
from app.tools.tool import Tool, tool
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio


def add(one: int, other: int) -> int:
    return one + other


async def test_a_failed_call_is_tried_again_as_often_as_its_tool_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.tools.tool.RETRY_DELAY_S", 0.001)
    tries: list[int] = []

    @tool(retries=2)
    def flaky(fail: int) -> int:
        """Fail so often."""
        tries.append(fail)
        if len(tries) <= fail:
            raise ConnectionError("gone")
        return len(tries)

    assert await flaky.call('{"fail": 2}') == ("3", False)
    tries.clear()
    assert await flaky.call('{"fail": 9}') == ("flaky failed: ConnectionError: gone", True)
    assert len(tries) == 3
    assert "was not run" in (await flaky.call('{"fail": "often"}')).text
    assert len(tries) == 3


async def test_an_async_tool_that_refuses_to_be_cancelled_is_left_alone() -> None:
    release = asyncio.Event()

    @tool(timeout_s=0.05)
    async def stubborn() -> None:
        """Never return."""
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    assert await stubborn.call("{}") == ("stubborn took longer than 0.05 s", True)
    release.set()


class Odd(BaseException):
    """An error that is no Exception and has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), Odd()])
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_a_tool_raises_is_for_the_model_to_read(
    error: BaseException, is_async: bool
) -> None:
    def fail() -> None:
        raise error

    async def fail_async() -> None:
        raise error

    output = await Tool(fail_async if is_async else fail, name="fail").call("{}")

    assert output.is_error
    assert type(error).__name__ in output.text


async def test_validators_run_in_a_thread_and_async_tools_on_the_loop_of_user_code() -> None:
    places: list[str] = []

    def note(value: int) -> int:
        places.append(threading.current_thread().name)
        return value

    @tool
    async def where(value: Annotated[int, AfterValidator(note)]) -> str:
        """Say where."""
        return threading.current_thread().name

    assert await where.call('{"value": 1}') == ("user code", False)
    assert places == ["tool"]


async def test_a_validator_that_hangs_ends_at_the_time_of_its_tool() -> None:
    release = threading.Event()

    def hang(value: int) -> int:
        release.wait(scaled(60))
        return value

    @tool(timeout_s=0.05)
    def slow(value: Annotated[int, AfterValidator(hang)]) -> int:
        """Return the value."""
        return value

    assert await slow.call('{"value": 1}') == ("slow took longer than 0.05 s", True)
    release.set()


async def test_a_text_of_a_users_class_becomes_a_plain_text() -> None:
    class Text(str):
        __slots__ = ()

        def __getitem__(self, _: object) -> str:
            raise SystemExit

    @tool
    def odd() -> str:
        """Return an odd text."""
        return Text("odd")

    text, is_error = await odd.call("{}")
    assert (type(text), text, is_error) == (str, "odd", False)


async def test_a_large_result_is_cut_between_characters_with_a_note() -> None:
    @tool
    def large(characters: int) -> str:
        """Say much."""
        return "é" * characters

    @tool(max_output_bytes=3)
    def small() -> str:
        """Say little."""
        return "éé"

    text, is_error = await large.call('{"characters": 25000000}', max_output_bytes=101)

    assert not is_error
    assert text == "é" * 50 + ("\n[cut: these are the first 50 of 25,000,000 characters]")
    assert (await large.call('{"characters": 50}', max_output_bytes=100)).text == "é" * 50
    assert (await small.call("{}")).text.startswith("é\n[cut")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"max_output_bytes": 0}, "max_output_bytes is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(WorkflowError, match=rf"tool 'add': {problem}"):
        Tool(add, **options)

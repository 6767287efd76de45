"""Arguments, results and schemas of tools are exact, or refused in words."""

from typing import Annotated, Any

import pytest
from pydantic import Field

from app.errors import WorkflowError
from app.tools.tool import tool

pytestmark = pytest.mark.anyio


@tool
def order(number: int, note: Any = None) -> dict[str, Any]:
    """Return the arguments."""
    return {"number": number, "note": note}


async def test_integers_beyond_64_bits_keep_their_digits() -> None:
    large = (1 << 70) + 1

    text, is_error = await order.call(f'{{"number": {large}, "note": [{-large}]}}')

    assert not is_error
    assert text == f'{{"number":{large},"note":[{-large}]}}'


async def test_a_default_that_is_not_json_is_left_out_of_the_schema() -> None:
    @tool
    def price(limit: float = float("inf")) -> bool:
        return limit > 5

    assert price.parameters["properties"]["limit"] == {"type": "number"}
    assert await price.call("") == ("true", False)


def test_a_bound_that_is_not_json_is_refused_in_words() -> None:
    @tool
    def price(limit: Annotated[int, Field(le=1 << 1025)]) -> int:
        return limit

    with pytest.raises(WorkflowError, match=r"tool 'price': parameters\.\S+ is an integer with"):
        _ = price.parameters

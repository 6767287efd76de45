"""The one reader and the one writer of JSON: everything exactly, or refused in words."""

import datetime as dt
import json
import uuid
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.json_text import read_json, write_json, write_jsonb
from app.domain.json_values import find_json_problem
from app.errors import InvalidJson
from tests.support.json_documents import integers, json_values, same

BOM = b"\xef\xbb\xbf"


@given(json_values)
def test_what_is_written_is_read_back_unchanged(value: Any) -> None:
    for text in (
        write_json(value),
        write_jsonb(value),
        json.dumps(value),
        json.dumps(value, indent=1),
    ):
        assert same(read_json(text), value)


@given(json_values)
def test_every_stored_value_can_be_written_and_every_other_is_refused(value: Any) -> None:
    assert find_json_problem(value, "value") is None
    assert json.loads(write_json(value)) == value


@given(
    integers, st.text('0123456789 .,e-[]"', max_size=60), st.text('0123456789 .,e-[]"', max_size=60)
)
@example(1 << 64, "", "")
@example(1 << 64, "0.", "")
@example(-(1 << 63) - 1, '"', '"')
def test_a_number_is_exact_whatever_stands_around_it(number: int, before: str, after: str) -> None:
    value = [before, number, after, {before: number}]

    for text in (json.dumps(value), json.dumps(value, separators=(",", ":"))):
        assert same(read_json(text), value)
        assert same(read_json(text.encode()), value)
    assert read_json(f" {number}") == read_json(f"{number}") == number


@given(st.text('0123456789.eE+-", []{}:nultrfas\\', max_size=40))
@example("[1e400]")
def test_a_text_is_read_as_the_standard_library_reads_it_or_is_refused(text: str) -> None:
    try:
        expected = json.loads(text)
        too_large = "inf" in repr(expected)
    except ValueError:
        too_large = True

    if too_large:
        with pytest.raises(InvalidJson, match=r"is not valid JSON|is too large a number"):
            read_json(text)
    else:
        assert same(read_json(text), expected)


@given(st.dictionaries(st.text(max_size=3), st.lists(json_values, max_size=2), max_size=3))
def test_keys_are_sorted_and_lines_indented_as_orjson_does(value: Any) -> None:
    large = {**value, "z": 1 << 70}
    small = {**value, "z": "LARGE"}

    for options in ({"sort_keys": True}, {"indent": True}):
        text = write_json(large, **options).decode()
        assert text == write_json(small, **options).decode().replace('"LARGE"', str(1 << 70))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "output is not valid JSON: Expecting value (line 1, column 1)"),
        (
            '{"a": 1,\n "b" 2}',
            "output is not valid JSON: Expecting ':' delimiter (line 2, column 6)",
        ),
        ('{"a": [0, NaN]}', "output.a[1] is NaN, which is not JSON: write null"),
        ("-Infinity", "output is -Infinity, which is not JSON: write null"),
        ("[1e400]", "output[0] is too large a number: give a string"),
        ("[-1e400]", "output[0] is too large a number: give a string"),
        (f"[{1 << 1024}]", "output[0] is an integer with too many digits (over 1,024 bits)"),
        ("[" + "9" * 5000 + "]", "output[0] is an integer with too many digits (over 1,024 bits)"),
        ('{"a": "\\ud800"}', "output.a contains half a surrogate pair at 0"),
        ('{"\\udfff": 1}', "output has a key that contains half a surrogate pair at 0"),
        ("[" * 100_000, "output is nested too deeply"),
        (b'"\xff"', "output is not UTF-8 text (byte 0xff at 1)"),
        ('"\ud800"', "output contains half a surrogate pair at 0"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_path(text: str | bytes, problem: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        read_json(text, "output")

    assert problem in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [1 << 1024, -(1 << 1024), "\ud800", float("nan")])
def test_the_writer_names_what_it_cannot_write(value: Any) -> None:
    with pytest.raises(InvalidJson, match=r"^the value\.a\[1\] (is|contains) "):
        write_json({"a": [0, value], "b": "\ud800"})


def test_a_value_that_contains_itself_or_an_object_is_refused_in_words() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(InvalidJson, match="is nested too deeply, or contains itself"):
        write_json(endless)
    with pytest.raises(InvalidJson, match="Type is not JSON serializable: object"):
        write_json([object()])
    with pytest.raises(InvalidJson, match="has the key 1, not a string: give '1'"):
        write_jsonb({1: 2})


def test_a_byte_order_mark_is_skipped() -> None:
    assert read_json(BOM + b'{"a": 1}') == read_json('\ufeff{"a": 1}') == {"a": 1}


def test_rows_of_statements_are_written_as_orjson_writes_them() -> None:
    row = {"id": uuid.uuid4(), "at": dt.datetime(2026, 7, 1, tzinfo=dt.UTC), "n": (1, 2.5)}

    assert write_json(row) == orjson.dumps(row)
    assert read_json(write_jsonb(row | {"large": 1 << 64})) == orjson.loads(orjson.dumps(row)) | {
        "large": 1 << 64
    }


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e15, "1000000000000000.0"),
        (1e16, "10000000000000000.0"),
        (-1.5e17, "-150000000000000000.0"),
        (1e23, "100000000000000000000000.0"),
        (1e-7, "1e-7"),
        (10**23, "100000000000000000000000"),
    ],
)
def test_a_large_double_keeps_its_point_in_a_jsonb_column(number: float, text: str) -> None:
    assert write_jsonb(number) == text
    assert write_jsonb({"a 1e+16": [number]}) == f'{{"a 1e+16":[{text}]}}'

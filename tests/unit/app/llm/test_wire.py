"""Texts in pieces: a character is whole wherever a server has cut it."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.llm.headers import retry_after_s
from app.llm.wire import joined, legible, read_json, split_begun
from tests.support.cheapness import assert_cheap

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def pieces_of(content: bytes, cuts: list[int]) -> list[str]:
    """The texts of the pieces of some bytes, as they are read from JSON."""
    places = sorted({cut % (len(content) + 1) for cut in cuts} | {0, len(content)})
    parts = (content[start:end] for start, end in pairwise(places))
    return [read_json(b'"' + part + b'"') for part in parts]


@given(TEXTS, st.lists(st.integers(0, 100)))
@example("\N{GRINNING FACE}", [1, 2, 3])
def test_a_text_is_joined_wherever_its_bytes_were_cut(text: str, cuts: list[int]) -> None:
    escaped = json.dumps(text, ensure_ascii=False).encode()[1:-1]
    if b"\\" in escaped:
        return  # JSON's own escapes cannot be cut

    pieces = pieces_of(escaped, cuts)

    assert legible(joined(pieces)) == text


@given(TEXTS, st.lists(st.integers(0, 100)))
def test_a_text_is_joined_wherever_its_surrogate_pairs_were_cut(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le")
    places = sorted({2 * (cut % (len(units) // 2 + 1)) for cut in cuts} | {0, len(units)})
    parts = (units[start:end] for start, end in pairwise(places))
    pieces = [part.decode("utf-16-le", "surrogatepass") for part in parts]

    assert legible(joined(pieces)) == text


@given(st.binary(max_size=12), st.lists(st.integers(0, 100)))
def test_bytes_that_are_no_text_are_read_the_same_in_any_pieces(
    content: bytes, cuts: list[int]
) -> None:
    content = content.translate(None, b'"\\')

    text = legible(joined(pieces_of(content, cuts)))

    assert text == legible(joined(pieces_of(content, [])))
    assert text.isascii() == content.isascii()


@given(st.binary(max_size=12), st.lists(st.integers(0, 100)))
def test_what_is_shown_piece_by_piece_is_the_text(content: bytes, cuts: list[int]) -> None:
    pieces = pieces_of(content.translate(None, b'"\\'), cuts)
    shown, begun = "", ""

    for piece in pieces:
        text, begun = split_begun(joined([begun, piece]))
        shown += legible(text)

    assert shown + legible(begun) == legible(joined(pieces))


def test_halves_that_are_written_as_utf_8_are_halves() -> None:
    assert read_json(b'"\xed\xa0\xbd\xed\xb8\x80"') == "\N{GRINNING FACE}"


def test_a_byte_in_a_value_is_replaced_at_any_depth() -> None:
    value = read_json(b'{"caf\xe9": ["caf\xe9", 1, null]}')

    assert legible(value) == {"caf\ufffd": ["caf\ufffd", 1, None]}


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "' + b"\xf0\x9f" * 100_000 + b'"}',
        b'{"long": 1234567890123456789012, "all": [' + b"{}," * 600_000 + b"1]}",
    ],
)
def test_a_document_that_would_take_seconds_is_refused(content: bytes) -> None:
    async def attack() -> None:
        with pytest.raises(ValueError, match="over"):
            read_json(content)

    assert_cheap(attack)


def test_an_integer_with_thousands_of_digits_is_no_number() -> None:
    digits = b"1" * 4000

    value = read_json(
        b'{"id": 12345678901234567890, "text": "' + digits + b'", "n": ' + digits + b"}"
    )

    assert value == {"id": 12345678901234567890, "text": digits.decode(), "n": None}


@pytest.mark.parametrize("text", ["1m", "1h ", "PT1H", "(", "Dec "])
def test_a_long_text_is_no_time_to_wait_and_takes_no_time(text: str) -> None:
    async def attack() -> None:
        assert retry_after_s({}, [{"retry_after": text * (800_000 // len(text))}]) is None

    assert_cheap(attack)

"""Texts in pieces: a character is whole wherever a server has cut it."""

import json
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from app.llm.wire import joined, legible, read_json, split_begun

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

"""Texts from outside are decoded in linear time, whatever their server calls them."""

import encodings
import pkgutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.outbound.charsets import CHARSETS, charset_of, decoded

CODECS = sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (None, "é".encode(), "é"),
        ("UTF-8", "é".encode(), "é"),
        ("ISO-8859-1", b"\xe9", "é"),
        ("windows-1252", b"\x80", "€"),
        ("Shift_JIS", "日本".encode("shift_jis"), "日本"),
        ("gb2312", "中文".encode("gb2312"), "中文"),
        ("utf-16", "é".encode("utf-16"), "é"),
        ("utf-16", b"\xfe\xff\x00\xe9", "é"),
        ("utf-16", b"\xe9\x00h\x00", "éh"),
        ("no-such-charset", "é".encode(), "é"),
        ("utf-8", b"\xff", "\ufffd"),
    ],
)
def test_the_character_sets_of_the_web_are_known(
    name: str | None, content: bytes, text: str
) -> None:
    assert decoded(content, name) == text


@pytest.mark.parametrize(
    "name",
    [
        *("punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape", "utf-7"),
        *("rot13", "hex", "zlib", "bz2", "x" * 8000, "utf-8\0", "\uff35tf-8", "../utf_8", ""),
    ],
)
def test_what_is_no_character_set_is_read_as_utf_8(name: str) -> None:
    assert charset_of(name) == "utf_8"


@given(st.sampled_from(CODECS) | st.text(), st.binary(max_size=300))
@example("utf-16", b"\0\0")
def test_every_answer_of_a_server_has_a_text(name: str, content: bytes) -> None:
    assert isinstance(decoded(content, name), str)
    assert charset_of(name) in CHARSETS


@given(st.sampled_from(sorted(CHARSETS)), st.text(max_size=50))
def test_a_text_in_a_character_set_comes_back_whole_across_pieces(charset: str, text: str) -> None:
    content = ("x" * 65_535 + text).encode(charset, "ignore")

    assert decoded(content, charset) == content.decode(charset, "replace")

"""Headers from outside are read in linear time, and by no codec that a server names."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.outbound.charsets import CHARSETS, charset_of
from app.outbound.content_types import UNKNOWN, content_type_of
from tests.support.cheapness import assert_cheap


@pytest.mark.parametrize(
    ("header", "name", "charset"),
    [
        (None, "", None),
        ("text/html", "text/html", None),
        ("Text/HTML ; Charset=UTF-8", "text/html", "UTF-8"),
        ('application/ld+json; a=b; charset="iso-8859-1"', "application/ld+json", "iso-8859-1"),
        ("text/html;charset=' x'", "text/html", None),
        ("", UNKNOWN, None),
        ("text", UNKNOWN, None),
        ("a/b/c; charset=utf-8", UNKNOWN, "utf-8"),
        ("text/html; charset*=idna''%41", "text/html", None),
        ("text/html" + ";" * 2000 + "charset=utf-8", "text/html", None),
    ],
)
def test_a_header_has_a_type_and_a_charset(
    header: str | None, name: str, charset: str | None
) -> None:
    assert content_type_of(header) == (name, charset)


pieces = st.sampled_from(
    [";", ";a", '"', "\\", ";charset=", ";a*0*=''", "(", " ", "=?", "text/html"]
)


@given(st.lists(pieces | st.text(max_size=3), max_size=5), st.sampled_from([1, 10, 2000]))
@example([";"], 8000)
@example([";a*='"], 2000)
@example([";a=("], 2000)
def test_a_header_is_cheap_to_read(parts: list[str], times: int) -> None:
    header = "text/html" + "".join(parts) * times

    async def attack() -> None:
        found = content_type_of(header)
        assert charset_of(found.charset) in CHARSETS

    assert_cheap(attack)

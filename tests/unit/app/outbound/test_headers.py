"""A header of a workflow or a model never becomes a header of the connection."""

import pytest
from aiohttp import HttpVersion11
from aiohttp.http_writer import _serialize_headers
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from app.outbound.headers import check_headers

FRAMING = ("host", "transfer-encoding", "content-length", "connection", "proxy-authorization")
NAMES = st.text(max_size=8) | st.builds(
    lambda before, name, after: before + name + after,
    st.sampled_from(["", " ", "\t", "X\r\n", "\0"]),
    st.sampled_from(FRAMING),
    st.sampled_from(["", " ", "\t", ":", "\0", "\xa0", "\N{KELVIN SIGN}"]),
)
VALUES = st.text(max_size=8) | st.sampled_from(["a\r\nHost: b", "a\nb", "a\rb", "a\0b", " a ", "é"])


@given(NAMES, VALUES)
@example("Host ", "b")
@example("Transfer-Encoding ", "chunked")
def test_a_header_that_is_accepted_is_one_line_and_not_of_the_connection(
    name: str, value: str
) -> None:
    try:
        check_headers({name: value})
    except ValueError:
        return

    sent = _serialize_headers(f"GET / HTTP/{HttpVersion11.major}.1", CIMultiDict({name: value}))
    _, line, *rest = sent.split(b"\r\n")
    assert rest == [b"", b""]
    assert not set(line) & set(b"\0\r\n")
    assert line.partition(b":")[0].decode().strip().lower() not in FRAMING


@pytest.mark.parametrize("name", ["Host ", "Transfer-Encoding ", "Host", "TE", "Proxy-Connection"])
def test_a_header_of_the_connection_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        check_headers({name: "x"})


@pytest.mark.parametrize(
    ("name", "value"), [("X-Team", "finance"), ("Accept", ""), ("A", "b\tc é")]
)
def test_an_ordinary_header_is_accepted(name: str, value: str) -> None:
    check_headers({name: value})

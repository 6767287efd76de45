"""Answers of web servers, in every character set that Python or a server may know."""

import encodings
import pkgutil
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from app.configuration.sections import HttpTools
from app.outbound.fetching import Fetcher, WebAnswer, WebRequest
from app.sandbox.processes import Sandbox
from app.tools.builtin.web import WebTools
from tests.support.cheapness import assert_cheap

charsets = st.one_of(
    st.sampled_from(sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))),
    st.text(max_size=60),
    st.none(),
)
pieces = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.sampled_from(
        [
            *(b"a", b"-", b"\xff", b"\x1b$B", b"+A", b"\\N{LATIN SMALL LETTER A}", b"xn--a."),
            *(b"\x00", b"\xd8\x00", b"&amp;", b"\x81", b"<p>text</p>", b"\n"),
        ]
    ),
)
bodies = st.lists(
    st.builds(
        lambda piece, size: piece * (size // len(piece)),
        pieces,
        st.sampled_from([10, 1000, 100_000, 1_000_000]),
    ),
    min_size=1,
    max_size=3,
).map(b"".join)
kinds = st.sampled_from(["text/plain", "application/json", "text/csv", "image/png", ""])
# A page with much markup may use all the time of the sandbox, so it is small here.
pages = st.lists(
    st.builds(
        lambda piece, count: piece * count,
        st.sampled_from(["<p>", "<div>", "<b a=1 ", "<table><tr><td>", "x<br>", "<!--", "text "]),
        st.sampled_from([1, 100, 2000]),
    ),
    min_size=1,
    max_size=4,
).map(lambda parts: "".join(parts).encode())


class Given(Fetcher):
    """Has the answer already."""

    def __init__(self, answer: WebAnswer) -> None:
        super().__init__(HttpTools())
        self._answer = answer

    async def fetch(self, request: WebRequest) -> WebAnswer:
        return self._answer


@given(charsets, st.tuples(kinds, bodies) | st.tuples(st.just("text/html"), pages))
def test_a_text_from_a_server_is_cheap(
    sandbox: Sandbox, charset: str | None, content: tuple[str, bytes]
) -> None:
    kind, body = content
    answer = WebAnswer(
        url="http://a.example/",
        status=200,
        headers={},
        content_type=kind,
        charset=charset,
        body=body[:2_000_000],
        is_cut=False,
    )

    async def attack() -> None:
        tools = WebTools(Given(answer), sandbox)
        await tools.http_request(answer.url)
        with suppress(ValueError):
            await tools.fetch_page(answer.url)

    assert_cheap(attack)

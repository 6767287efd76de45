"""Headers of answers, and headers that a workflow gives to requests."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from app.llm.headers import limit_headers, request_id, retry_after_s
from app.outbound.headers import check_headers
from app.rate_limits.headers import limits_in
from tests.support.cheapness import assert_cheap

#: Servers and their libraries accept no longer lines.
MAX_CHARS = 100_000

words = st.sampled_from(
    [
        *("x-ratelimit-", "anthropic-ratelimit-", "limit-", "remaining-", "reset-", "requests"),
        *("input-tokens", "project-", "retry-after", "retry-after-ms", "-", "Host", " ", "\t"),
        "\r\n",
    ]
)
names = st.lists(words | st.text(max_size=5), min_size=1, max_size=6).map("".join)
pieces = st.sampled_from(
    [
        *("1", "0", "9", ".", "-", "+", "e", "E", "_", " ", "\t", "\r", "\n", "\x00", ":", ","),
        *("1m", "2h", "3s", "4ms", "PT", "P1D", "T", "Z", "Nov", "Sat, ", "GMT", "\uff12", "\xb2"),
        *("\xe9", "\ud800"),
    ]
)
values = st.lists(
    st.builds(lambda piece, count: piece * count, pieces, st.sampled_from([1, 2, 30, 50_000])),
    max_size=6,
).map(lambda parts: "".join(parts)[:MAX_CHARS])


@given(st.dictionaries(names, values, max_size=8), values)
def test_headers_are_cheap(headers: dict[str, str], wait: str) -> None:
    given_headers = {**headers, "retry-after": wait}

    async def attack() -> None:
        list(limits_in(limit_headers(given_headers)))
        request_id(given_headers)
        seconds = retry_after_s(given_headers, [{"retryDelay": wait, "retry_after": wait}])
        assert seconds is None or 0 <= seconds <= 86_400
        with suppress(ValueError):
            check_headers(given_headers)

    assert_cheap(attack)

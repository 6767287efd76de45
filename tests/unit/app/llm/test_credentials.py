"""What a function of the configuration may return as credentials, and what is refused."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import Credentials
from app.llm.credentials import UNKNOWN_LIFETIME_S, NotCredentials, read_credentials

TOKEN = "ya29.a0AfH6SMB-token/with+signs="
SOON = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "found",
    [
        TOKEN,
        f"{TOKEN}\n",
        {"token": TOKEN},
        {"token": TOKEN, "expires_in_s": None, "headers": {}},
        Credentials(token=TOKEN),
    ],
)
def test_a_token_alone_is_valid_for_five_minutes(found: Any) -> None:
    read = read_credentials(found)

    assert read.headers == {"Authorization": f"Bearer {TOKEN}"}
    assert read.lifetime_s == UNKNOWN_LIFETIME_S == 300


@pytest.mark.parametrize(
    "lifetime_of",
    [
        lambda _: {"expires_in_s": 3600},
        lambda soon: {"expires_at": soon},
        lambda soon: {"expires_at": soon.astimezone()},
        lambda soon: {"expires_at": soon.timestamp()},
    ],
    ids=["length", "end", "end in a zone", "seconds"],
)
def test_a_lifetime_is_a_length_or_an_end(
    lifetime_of: Callable[[datetime], dict[str, Any]],
) -> None:
    lifetime = lifetime_of(datetime.now(UTC) + timedelta(hours=1))
    as_dict = read_credentials({"token": TOKEN} | lifetime)
    as_object = read_credentials(Credentials(token=TOKEN, **lifetime))

    assert as_dict.lifetime_s == pytest.approx(3600, abs=60)
    assert as_object.lifetime_s == pytest.approx(3600, abs=60)


def test_a_token_that_has_expired_has_no_lifetime_left() -> None:
    assert read_credentials({"token": TOKEN, "expires_at": time.time() - 5}).lifetime_s < 0


def test_headers_are_added_and_may_replace_the_header_of_the_token() -> None:
    added = read_credentials({"token": TOKEN, "headers": {"api-key": " k-12345678 "}})
    replaced = read_credentials({"token": TOKEN, "headers": {"authorization": "AWS4 abc"}})

    assert added.headers == {"Authorization": f"Bearer {TOKEN}", "api-key": "k-12345678"}
    assert added.secrets == (TOKEN, "k-12345678")
    assert replaced.headers == {"Authorization": "AWS4 abc"}


class Odd(Mapping[str, Any]):
    """A mapping whose values cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(TOKEN)

    def __iter__(self) -> Any:
        return iter(["token"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "a value of the type NoneType: return the token as a string, a dict or"),
        (TOKEN.encode(), "a value of the type bytes"),
        ([TOKEN], "a value of the type list"),
        ("", "no token that a header can carry"),
        (f"Bearer {TOKEN}", "return the bare token, without 'Bearer'"),
        (f"{TOKEN}\r\nX-Other: 1", "no token that a header can carry"),
        ("tökén-12345678", "no token that a header can carry"),
        ({}, "no token"),
        ({"token": TOKEN.encode()}, "no token"),
        ({"access_token": TOKEN}, "a dict with other keys than token, expires_in_s"),
        ({"token": TOKEN, TOKEN: 1}, "a dict with other keys"),
        ({"token": TOKEN, "expires_in_s": "3599"}, "an expires_in_s that is no number of seconds"),
        ({"token": TOKEN, "expires_in_s": True}, "no number of seconds"),
        ({"token": TOKEN, "expires_in_s": float("nan")}, "no number of seconds"),
        ({"token": TOKEN, "expires_at": float("inf")}, "an expires_at that is no number"),
        ({"token": TOKEN, "expires_at": datetime(2026, 1, 1)}, "without a time zone"),  # noqa: DTZ001
        ({"token": TOKEN, "expires_at": SOON, "expires_in_s": 5}, "return one of them"),
        ({"token": TOKEN, "headers": [TOKEN]}, "wrong headers"),
        ({"token": TOKEN, "headers": {"a b": TOKEN}}, "wrong headers"),
        ({"token": TOKEN, "headers": {"x": f"{TOKEN}\n1"}}, "wrong headers"),
        ({"token": TOKEN, "headers": {5: TOKEN}}, "wrong headers"),
    ],
)
def test_anything_else_is_refused_in_words_without_the_token(found: Any, problem: str) -> None:
    with pytest.raises(NotCredentials) as refused:
        read_credentials(found)

    assert problem in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_no_representation_has_the_token() -> None:
    credentials = Credentials(token=TOKEN, expires_in_s=60, headers={"api-key": TOKEN})

    assert TOKEN not in repr(credentials) + repr(read_credentials(credentials))


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.dictionaries(st.sampled_from(["token", "expires_in_s", "expires_at", "headers"]), VALUES)
    | VALUES
)
def test_whatever_is_read_can_be_sent_and_has_a_lifetime(found: Any) -> None:
    try:
        read = read_credentials(found)
    except NotCredentials:
        return
    assert set(read.headers) >= {"Authorization"}
    for text in (*read.headers, *read.headers.values()):
        assert text.isascii()
        assert text.isprintable()
    assert abs(read.lifetime_s) < float("inf")

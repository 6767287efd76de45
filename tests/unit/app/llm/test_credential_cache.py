"""The cache of tokens: one call at a time, renewal before the end, failures without secrets."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AuthenticationFailed, CredentialsFailed
from app.llm.credential_cache import CredentialCache
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

TOKEN = "ya29.a0AfH6SMBtoken"


class Clock:
    """A clock that a test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Source:
    """A function that returns ``token-1``, ``token-2`` and so on, or fails."""

    def __init__(self, lifetime_s: float = 600.0) -> None:
        self.lifetime_s = lifetime_s
        self.calls = 0
        self.running = 0
        self.error: Exception | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> dict[str, Any]:
        self.calls += 1
        self.running += 1
        assert self.running == 1, "two calls at a time"
        number = self.calls
        await self.may_end.wait()
        self.running -= 1
        if self.error:
            raise self.error
        return {"token": f"token-{number}", "expires_in_s": self.lifetime_s}


def cache_of(function: Callable[[], Any], **arguments: Any) -> CredentialCache:
    return CredentialCache(function, path="acme.cloud:token", provider="vertex", **arguments)


async def token_of(cache: CredentialCache) -> str:
    return (await cache.get()).headers["Authorization"].removeprefix("Bearer ")


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop run until a condition is true."""

    async def holds() -> bool:
        return condition()

    await wait_until_async(holds)


async def test_concurrent_calls_wait_for_the_same_call_of_the_function() -> None:
    source = Source()
    cache = cache_of(source)

    tokens = await asyncio.gather(*(token_of(cache) for _ in range(100)))

    assert set(tokens) == {"token-1"}
    assert source.calls == 1


@pytest.mark.parametrize(("lifetime_s", "before_s"), [(3600, 60), (100, 10), (1, 0.1)])
async def test_a_token_is_renewed_before_its_end_and_no_call_waits(
    lifetime_s: float, before_s: float
) -> None:
    clock, source = Clock(), Source(lifetime_s)
    cache = cache_of(source, clock=clock)
    await cache.get()

    clock.now_s += lifetime_s - before_s * 1.01
    early = await token_of(cache)
    calls_before = source.calls
    clock.now_s += before_s * 0.02
    source.may_end.clear()
    during = [await token_of(cache) for _ in range(3)]  # the function has not returned yet
    source.may_end.set()
    await settled(lambda: source.running == 0)
    await settled(lambda: cache._renewal is None)
    after = await token_of(cache)

    assert (early, calls_before) == ("token-1", 1)
    assert during == ["token-1"] * 3
    assert (after, source.calls) == ("token-2", 2)


async def test_an_expired_token_is_never_given_out() -> None:
    clock, source = Clock(), Source(600)
    cache = cache_of(source, clock=clock)
    await cache.get()

    clock.now_s += 600
    source.may_end.clear()
    waiting = [asyncio.create_task(token_of(cache)) for _ in range(10)]
    await settled(lambda: source.calls == 2)
    assert not any(task.done() for task in waiting)
    source.may_end.set()

    assert set(await asyncio.gather(*waiting)) == {"token-2"}


async def test_while_the_old_token_is_valid_a_failure_harms_no_call() -> None:
    clock, source = Clock(), Source(600)
    cache = cache_of(source, clock=clock)
    await cache.get()
    source.error = RuntimeError("the token server is down")

    clock.now_s += 570
    tokens = []
    for _ in range(5):
        tokens.append(await token_of(cache))
        await settled(lambda: cache._renewal is None)
        clock.now_s += 2  # the pause is over
    clock.now_s += 60
    with pytest.raises(CredentialsFailed):
        await cache.get()

    assert tokens == ["token-1"] * 5
    assert source.calls == 7


async def test_after_a_failure_the_function_has_a_pause() -> None:
    clock, source = Clock(), Source()
    source.error = RuntimeError("down")
    cache = cache_of(source, clock=clock)

    for _ in range(5):
        with pytest.raises(CredentialsFailed):
            await cache.get()
    calls_at_once = source.calls
    source.error = None
    clock.now_s += 1.1

    assert calls_at_once == 1
    assert await token_of(cache) == "token-2"


async def test_every_waiting_call_gets_an_error_of_its_own() -> None:
    source = Source()
    source.error = RuntimeError("down")
    cache = cache_of(source)

    errors = await asyncio.gather(*(cache.get() for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in errors] == [CredentialsFailed] * 3
    assert len({id(error) for error in errors}) == 3


async def test_a_cancelled_call_does_not_cancel_the_renewal_of_the_others() -> None:
    source = Source()
    source.may_end.clear()
    cache = cache_of(source)
    first, second = asyncio.create_task(cache.get()), asyncio.create_task(token_of(cache))
    await settled(lambda: source.calls == 1)

    first.cancel()
    await asyncio.wait({first})
    source.may_end.set()

    assert first.cancelled()
    assert await second == "token-1"
    assert source.calls == 1


def raising(error: BaseException) -> Callable[[], Any]:
    def function() -> Any:
        raise error

    return function


def raising_async(error: BaseException) -> Callable[[], Awaitable[Any]]:
    async def function() -> Any:
        raise error

    return function


@pytest.mark.parametrize("make", [raising, raising_async])
@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("permission denied"), "which raised ValueError: permission denied"),
        (StopIteration(), "which raised "),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "acme.cloud:token, which "),
    ],
)
async def test_whatever_the_function_raises_becomes_a_failure_that_is_retried(
    make: Callable[[BaseException], Callable[[], Any]], error: BaseException, shown: str
) -> None:
    with pytest.raises(CredentialsFailed) as failed:
        await cache_of(make(error)).get()

    assert "no credentials for vertex: repair the function acme.cloud:token" in str(failed.value)
    assert shown in str(failed.value)
    assert failed.value.retriable
    assert not failed.value.reached
    assert failed.value.__cause__ is failed.value.__context__ is None


async def test_a_function_that_hangs_is_given_up_at_its_time_limit() -> None:
    async def hanging() -> None:
        await asyncio.Event().wait()

    stuck = threading.Event()
    for function in (hanging, stuck.wait):
        with pytest.raises(CredentialsFailed, match=r"took longer than 0\.05 s"):
            await cache_of(function, time_limit_s=0.05).get()
    stuck.set()


async def test_a_function_runs_in_a_thread_and_may_return_an_awaitable() -> None:
    threads = []

    async def later() -> str:
        return TOKEN

    def function() -> Any:
        threads.append(threading.current_thread())
        return later()

    assert await token_of(cache_of(function)) == TOKEN
    assert threads != [threading.main_thread()]


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError(TOKEN)


class OddDict(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise RuntimeError(TOKEN)


async def test_objects_that_cannot_be_read_become_failures_too() -> None:
    with pytest.raises(
        CredentialsFailed, match=r"which raised OddError: \(its message cannot be read"
    ):
        await cache_of(raising(OddError())).get()
    with pytest.raises(AuthenticationFailed, match="a value that cannot be read"):
        await cache_of(lambda: OddDict(token=TOKEN)).get()


async def test_what_is_no_token_is_not_retried_and_an_expired_token_is() -> None:
    with pytest.raises(AuthenticationFailed, match="type int") as nonsense:
        await cache_of(lambda: 5).get()
    with pytest.raises(CredentialsFailed, match="returned an expired token"):
        await cache_of(lambda: {"token": TOKEN, "expires_in_s": 0}).get()

    assert not nonsense.value.retriable


async def test_close_ends_a_renewal_that_still_runs() -> None:
    source = Source()
    source.may_end.clear()
    cache = cache_of(source)
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(cache.get())
    await settled(lambda: source.calls == 1)

    await cache.close()
    await asyncio.wait({waiting})

    assert waiting.cancelled()
    await settled(lambda: asyncio.all_tasks() == before)


#: Tokens as RFC 6750 spells them, which are long and are no words.
TOKENS = st.from_regex(r"[A-Za-z0-9._~+/-]{16,80}={0,2}", fullmatch=True).filter(
    lambda token: re.search(r"\d|[A-Z](?![a-z]{2})", token) is not None
)


@given(token=TOKENS, before=st.text(max_size=400), after=st.text(max_size=400))
def test_no_text_of_an_error_shows_a_token(token: str, before: str, after: str) -> None:
    async def failed() -> str:
        with pytest.raises(CredentialsFailed) as error:
            await cache_of(raising(RuntimeError(f"{before}{token}{after}"))).get()
        return str(error.value)

    assert token not in asyncio.run(failed())

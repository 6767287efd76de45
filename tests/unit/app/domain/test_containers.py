"""The time of containers: what is booked is never below the truth, and never above the hold."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.containers import ContainerRules
from app.domain.protocols import PROTOCOLS, Protocol
from app.domain.server_tools import uses_of

#: Sums of whole numbers are exact.
MILLISECONDS = st.integers(0, 3_000_000)
BOTH = st.sampled_from([PROTOCOLS["openai"], PROTOCOLS["anthropic"]])
OPENAI, ANTHROPIC = PROTOCOLS["openai"].containers, PROTOCOLS["anthropic"].containers
TIMEOUTS = st.floats(0.1, 86_400)
SIZES = st.sampled_from(["1g", "4g", "16g", "64g"])
# The providers bill at least 5 minutes. Until June 2026, OpenAI billed blocks of 20 minutes.
LEAST_S, BLOCK_S = 300, 1200


def entry_of(protocol: Protocol, max_uses: int, memory: str) -> dict[str, object]:
    entry: dict[str, object] = {"server": "code_execution"}
    if protocol.containers.memories:
        entry |= {"memory": memory, "max_uses": max_uses}
    return entry


@given(BOTH, TIMEOUTS, st.floats(0, 1), st.integers(1, 100), st.integers(0, 100), SIZES)
def test_no_call_books_more_than_its_hold(
    protocol: Protocol, timeout_s: float, part: float, max_uses: int, shown: int, memory: str
) -> None:
    rules = protocol.containers
    held = uses_of([entry_of(protocol, max_uses, memory)], protocol, timeout_s).container_seconds
    shown = min(shown, rules.most(max_uses))

    containers = rules.count(shown, ran=shown > 0) * rules.gigabytes(memory)

    assert rules.seconds(part * timeout_s, containers) <= held
    # The process may be busy when the timeout comes.
    assert rules.seconds(timeout_s + 60, containers) <= held


@given(BOTH, st.floats(0, 86_400), st.integers(1, 8))
def test_what_is_booked_covers_every_way_of_billing(
    protocol: Protocol, elapsed_s: float, containers: int
) -> None:
    rules = protocol.containers

    booked = rules.seconds(elapsed_s, containers)

    by_minutes = max(ceil(elapsed_s / 60) * 60, LEAST_S)
    with_idle_time = max(ceil((elapsed_s + rules.idle_s) / 60) * 60, LEAST_S)
    assert booked >= max(by_minutes, with_idle_time) * containers
    if protocol.containers is OPENAI:
        assert booked >= ceil(max(elapsed_s, 1) / BLOCK_S) * BLOCK_S * containers


@given(BOTH, st.lists(st.tuples(MILLISECONDS, MILLISECONDS), min_size=1, max_size=9))
def test_the_calls_of_a_conversation_cover_the_whole_time_of_their_container(
    protocol: Protocol, calls: list[tuple[int, int]]
) -> None:
    rules, now_ms, ready_until_ms, alive_ms, booked_s = protocol.containers, 0, 0, 0, 0
    for pause_ms, elapsed_ms in calls:
        begun_ms = max(now_ms := now_ms + pause_ms, ready_until_ms)
        now_ms += elapsed_ms
        ready_until_ms = now_ms + int(rules.idle_s * 1000)
        alive_ms += ready_until_ms - begun_ms
        booked_s += rules.seconds(elapsed_ms / 1000, 1)

    assert booked_s * 1000 >= alive_ms


@pytest.mark.parametrize(
    ("rules", "shown", "ran", "containers"),
    [
        (ANTHROPIC, 0, False, 0),
        (ANTHROPIC, 0, True, 1),
        (ANTHROPIC, 1, True, 1),
        (OPENAI, 0, False, 1),
        (OPENAI, 3, True, 3),
    ],
)
def test_a_container_that_may_have_been_made_counts(
    rules: ContainerRules, shown: int, ran: bool, containers: int
) -> None:
    assert rules.count(shown, ran=ran) == containers


def test_an_answer_without_a_container_costs_nothing() -> None:
    assert ANTHROPIC.seconds(20.0, ANTHROPIC.count(0, ran=False)) == 0


def test_a_container_counts_as_often_as_it_has_gigabytes() -> None:
    assert [OPENAI.gigabytes(size) for size in ("1g", "4g", "16g", "64g", None)] == [
        1,
        4,
        16,
        64,
        1,
    ]
    assert ANTHROPIC.gigabytes(None) == 1
    assert OPENAI.seconds(30.0, 4) == 4 * 21 * 60
    assert ANTHROPIC.seconds(30.0, 1) == 6 * 60

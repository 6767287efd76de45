from decimal import Decimal
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from app.domain.money import (
    Account,
    HoldOutcome,
    HoldRequest,
    decide_holds,
    dollars,
    round_to_ledger,
    round_up,
)


def account(limit: str = "10", spent: str = "0", held: str = "0", **more: bool) -> Account:
    return Account(
        id=uuid4(),
        label="budget",
        limit_usd=Decimal(limit),
        spent_usd=Decimal(spent),
        held_usd=Decimal(held),
        **more,
    )


def decide(amount: str, own: Account, *shared: Account) -> HoldOutcome:
    (answer,) = decide_holds([a_hold(amount, own, *shared)], by_id(own, *shared))
    return answer.outcome


def a_hold(amount: str, own: Account, *shared: Account) -> HoldRequest:
    return HoldRequest(
        call_id=uuid4(),
        agent_run_id=own.id,
        attempt=1,
        budget_ids=tuple(budget.id for budget in shared),
        amount_usd=Decimal(amount),
    )


def by_id(*accounts: Account) -> dict[UUID, Account]:
    return {each.id: each for each in accounts}


def test_a_hold_that_fits_every_account_is_placed_on_every_account() -> None:
    own, run = account("5"), account("5", held="3")

    outcome = decide("2", own, run)

    assert outcome is HoldOutcome.PLACED
    assert (own.held_usd, run.held_usd) == (Decimal(2), Decimal(5))


def test_a_hold_that_does_not_fit_one_account_is_placed_on_none() -> None:
    own, run = account("5"), account("5", held="4")

    outcome = decide("2", own, run)

    assert outcome is HoldOutcome.WAIT
    assert (own.held_usd, run.held_usd) == (Decimal(0), Decimal(4))


def test_a_hold_is_refused_only_when_settling_could_never_make_room() -> None:
    assert decide("2", account("5", spent="3", held="0")) is HoldOutcome.PLACED
    assert decide("2", account("5", spent="3", held="2")) is HoldOutcome.WAIT
    assert decide("2.01", account("5", spent="3", held="0")) is HoldOutcome.EXCEEDED


def test_a_closed_account_places_nothing_even_if_it_is_soft() -> None:
    assert decide("1", account(), account(closed=True)) is HoldOutcome.CLOSED
    assert decide("1", account(), account(closed=True, soft=True)) is HoldOutcome.CLOSED


def test_a_soft_account_never_refuses_but_counts() -> None:
    soft = account("1", spent="5", soft=True)

    outcome = decide("3", account(), soft)

    assert outcome is HoldOutcome.PLACED
    assert soft.held_usd == Decimal(3)


def test_a_small_hold_does_not_overtake_a_large_one_that_waits_for_the_same_account() -> None:
    first, second, run = account(), account(), account("10", held="5")
    requests = [a_hold("6", first, run), a_hold("1", second, run)]

    answers = decide_holds(requests, by_id(first, second, run))

    assert [answer.outcome for answer in answers] == [HoldOutcome.WAIT, HoldOutcome.WAIT]


amounts = st.decimals(min_value=0, max_value=20, places=4)


@given(
    limit=amounts,
    spent=amounts,
    asked=st.lists(amounts, max_size=30),
)
def test_placed_holds_never_exceed_a_hard_account(
    limit: Decimal, spent: Decimal, asked: list[Decimal]
) -> None:
    run = account(str(limit), spent=str(spent))
    owns = [account("1000") for _ in asked]
    requests = [a_hold(str(amount), own, run) for amount, own in zip(asked, owns, strict=True)]

    answers = decide_holds(requests, by_id(run, *owns))

    placed = [
        request.amount_usd
        for request, answer in zip(requests, answers, strict=True)
        if answer.outcome is HoldOutcome.PLACED
    ]
    assert run.held_usd == sum(placed)
    assert not placed or run.spent_usd + run.held_usd <= run.limit_usd


def test_a_waiter_keeps_its_place_and_the_money_it_needs() -> None:
    first, second, third, run = account(), account(), account(), account("10", held="5")
    large, small, tiny = (
        a_hold("6", first, run),
        a_hold("1", second, run),
        a_hold("0.1", third, run),
    )

    early = decide_holds([small, tiny], by_id(second, third, run), [large])
    run.held_usd = Decimal(2)
    later = decide_holds([tiny, small, large], by_id(first, second, third, run), [large, small])

    assert [answer.outcome for answer in early] == [HoldOutcome.WAIT, HoldOutcome.WAIT]
    assert [answer.outcome for answer in later] == [HoldOutcome.PLACED] * 3
    assert run.held_usd == Decimal("9.1")


def test_a_waiter_who_can_never_fit_keeps_nobody_waiting() -> None:
    own, run = account(), account("10", spent="5", held="2")
    hopeless = a_hold("6", account(), run)

    (answer,) = decide_holds([a_hold("1", own, run)], by_id(own, run), [hopeless])

    assert answer.outcome is HoldOutcome.PLACED


@given(
    limit=amounts,
    held=amounts,
    waiting=st.lists(amounts, max_size=8),
    arriving=st.lists(amounts, min_size=1, max_size=8),
)
def test_nobody_who_comes_later_delays_somebody_who_waits(
    limit: Decimal, held: Decimal, waiting: list[Decimal], arriving: list[Decimal]
) -> None:
    def run() -> Account:
        return account(str(limit), held=str(held))

    owns = [account("1000") for _ in range(len(waiting) + len(arriving))]
    shared = run()
    queue = [a_hold(str(usd), own, shared) for usd, own in zip(waiting, owns, strict=False)]
    later = [
        a_hold(str(usd), own, shared)
        for usd, own in zip(arriving, owns[len(waiting) :], strict=True)
    ]

    decide_holds(later, by_id(shared, *owns), queue)
    after = decide_holds(queue, by_id(shared, *owns), queue)
    alone_with = run()
    alone_with.id = shared.id
    alone = decide_holds(queue, by_id(alone_with, *owns), queue)

    assert [answer.outcome for answer in after] == [answer.outcome for answer in alone]


def test_amounts_are_shown_without_trailing_zeros_but_with_cents() -> None:
    shown = [dollars(Decimal(text)) for text in ("1.0000000000", "0.0100925000", "120", "0E-10")]

    assert shown == ["$1.00", "$0.0100925", "$120.00", "$0.00"]


@given(cost=st.decimals(min_value=0, max_value=10, places=14))
def test_a_hold_is_never_below_the_booked_cost(cost: Decimal) -> None:
    assert round_up(cost) >= round_to_ledger(cost)

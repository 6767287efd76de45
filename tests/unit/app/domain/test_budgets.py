from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.budgets import (
    BudgetTerms,
    Period,
    StandingScope,
    budget_label,
    passed_thresholds,
    subjects_of,
)
from app.domain.run_options import RunOptions
from app.errors import ConfigurationError, WorkflowError


def terms(**changes: Any) -> BudgetTerms:
    given_terms: dict[str, Any] = {
        "scope": StandingScope.MODULE,
        "subject": "Finance",
        "limit_usd": Decimal(5),
    }
    return BudgetTerms(**(given_terms | changes))


def test_thresholds_are_kept_in_order_and_once() -> None:
    assert terms(thresholds=(90, 50, 90)).thresholds == (50, 90)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit_usd": Decimal(-1)}, "limit of the budget of module Finance is -1.0"),
        ({"limit_usd": Decimal("NaN")}, "limit of the budget of module Finance is nan"),
        ({"thresholds": (0,)}, "threshold of the budget of module Finance is 0"),
        ({"start_hour": 24}, "start hour of the budget of module Finance is 24"),
        ({"start_day": 29}, "start day of the budget of module Finance is 29"),
        ({"subject": ""}, "a budget of a module needs its name"),
        ({"subject": " Finance"}, "no module can be called ' Finance'"),
        ({"subject": "Fin\nance"}, "no module can be called"),
        ({"scope": StandingScope.ALL}, "a budget of all has no subject"),
        ({"limit_usd": Decimal("1e-11")}, "less than the ledger counts"),
        ({"period": Period.NONE, "start_hour": 5}, "a start hour needs a period"),
        ({"period": Period.DAY, "start_day": 5}, "a start day needs months"),
    ],
)
def test_terms_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        terms(**changes)


def test_a_budget_is_called_by_its_subject_and_period() -> None:
    labels = [
        budget_label("all", "", Period.DAY),
        budget_label("module", "Finance", Period.NONE),
        budget_label("run", "0198", "none"),
    ]

    assert labels == ["budget of all per day", "budget of module Finance", "budget of run 0198"]


def test_a_call_counts_for_all_its_workflow_its_module_and_its_tenant_if_it_has_one() -> None:
    assert subjects_of(workflow="w", module="HR", tenant=None) == (
        ("all", ""),
        ("workflow", "w"),
        ("module", "HR"),
    )
    assert subjects_of(workflow="w", module="HR", tenant="acme")[-1] == ("tenant", "acme")


@pytest.mark.parametrize(
    ("reached", "spent", "limit", "passed"),
    [
        (0, "4.99", "10", []),
        (0, "5", "10", [50]),
        (0, "10", "10", [50, 80, 100]),
        (50, "8.5", "10", [80]),
        (100, "20", "10", []),
        (0, "0", "0", []),
        (0, "0.01", "0", [50, 80, 100]),
    ],
)
def test_a_threshold_is_passed_when_the_spending_has_come_to_it(
    reached: int, spent: str, limit: str, passed: list[int]
) -> None:
    found = passed_thresholds(
        (50, 80, 100), reached=reached, spent_usd=Decimal(spent), limit_usd=Decimal(limit)
    )

    assert found == passed


@given(bookings=st.lists(st.decimals(min_value=0, max_value=3, places=2), max_size=20))
def test_however_it_is_booked_each_threshold_is_told_once(bookings: list[Decimal]) -> None:
    spent, reached, told = Decimal(0), 0, []
    for amount in bookings:
        spent += amount
        found = passed_thresholds(
            (50, 80, 100), reached=reached, spent_usd=spent, limit_usd=Decimal(10)
        )
        told += found
        reached = max(found, default=reached)

    assert told == [percent for percent in (50, 80, 100) if spent * 10 >= percent]


@pytest.mark.parametrize("tenant", ["", " acme", "a\nb", "x" * 201])
def test_a_tenant_that_is_no_name_is_refused(tenant: str) -> None:
    with pytest.raises(WorkflowError, match="tenant of the run"):
        RunOptions(tenant=tenant)

"""Standing budgets: limits on the cost of a workflow, a module, a tenant or everything."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from app.domain.bounds import MAX_DOLLARS, Bounds
from app.domain.plain_text import find_name_problem
from app.domain.suggestions import shortened
from app.errors import ConfigurationError

LIMIT = Bounds(high=MAX_DOLLARS)
SMALLEST_USD = Decimal("1e-10")
PERCENT = Bounds(low=1, high=1000, whole=True)
HOUR = Bounds(high=23, whole=True)
DAY = Bounds(low=1, high=28, whole=True)
HUNDRED = 100
#: Percentages of a limit. If the spending passes one of these percentages, the history gets an
#: event.
DEFAULT_THRESHOLDS = (50, 80, 100)


class StandingScope(StrEnum):
    """The scope of the calls that a standing budget counts."""

    WORKFLOW = "workflow"
    MODULE = "module"
    TENANT = "tenant"
    ALL = "all"


EXAMPLES = {
    StandingScope.WORKFLOW: "workflow invoices",
    StandingScope.MODULE: "module Finance",
    StandingScope.TENANT: "tenant acme",
}


class Period(StrEnum):
    """The period after which the spending of a standing budget is reset to zero."""

    NONE = "none"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetTerms:
    """The terms of a standing budget, which an operator decides.

    Attributes:
        scope: The scope of the calls that the budget counts.
        subject: Name of the workflow, module or tenant; empty for the scope ``all``.
        period: The period after which the spending of the budget is reset to zero.
        limit_usd: Dollars per period.
        soft: Whether the budget only warns, and refuses no call.
        thresholds: Percentages of the limit, in ascending order. If the spending passes one of
            these percentages, the history gets an event.
        start_hour: Hour (UTC) at which the budget's days and months begin.
        start_day: Day of the month, from 1 to 28, on which the budget's months begin.

    Raises:
        ConfigurationError: If a value is out of its bounds, or if the subject does not fit the
            scope.
    """

    scope: StandingScope
    subject: str = ""
    period: Period = Period.NONE
    limit_usd: Decimal
    soft: bool = False
    thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS
    start_hour: int = 0
    start_day: int = 1

    def __post_init__(self) -> None:
        check_subject(self.scope, self.subject)
        if problem := find_name_problem(self.subject):
            raise ConfigurationError(
                f"no {self.scope} can be called {shortened(self.subject)}: the name {problem}"
            )
        # The limit is a float only for this comparison; the stored limit stays exact.
        checks = [("limit", LIMIT, float(self.limit_usd)), ("start hour", HOUR, self.start_hour)]
        checks += [("start day", DAY, self.start_day)]
        checks += [("threshold", PERCENT, percent) for percent in self.thresholds]
        for name, bounds, value in checks:
            if problem := bounds.problem(value):
                raise ConfigurationError(f"{name} of the {self.label} {problem}")
        if 0 < self.limit_usd < SMALLEST_USD:
            raise ConfigurationError(
                f"limit of the {self.label} is {self.limit_usd}, less than the ledger counts "
                f"({SMALLEST_USD:f}): give more, or 0, which refuses every call"
            )
        if self.start_hour and self.period is Period.NONE:
            raise ConfigurationError("a start hour needs a period: give --period day or month")
        if self.start_day != 1 and self.period is not Period.MONTH:
            raise ConfigurationError("a start day needs months: give --period month")
        object.__setattr__(self, "thresholds", tuple(sorted(set(self.thresholds))))

    @property
    def label(self) -> str:
        """Name of the budget in messages."""
        return budget_label(self.scope, self.subject, self.period)


def check_subject(scope: StandingScope, subject: str) -> None:
    """Refuse a subject that does not fit the scope.

    Whether a new budget may have such a name is checked by ``BudgetTerms``: an earlier version
    accepted more names, and the budgets of these names can still be shown and removed.

    Raises:
        ConfigurationError: If the scope needs a subject and there is none, or if the scope ``all``
            has a subject.
    """
    if scope is StandingScope.ALL and subject:
        raise ConfigurationError(f"a budget of all has no subject: leave out {subject!r}")
    if scope is not StandingScope.ALL and not subject:
        raise ConfigurationError(
            f"a budget of a {scope} needs its name, such as: {EXAMPLES[scope]}"
        )


def budget_label(scope: str, subject: str, period: str) -> str:
    """Return a budget's name in messages, such as ``budget of module Finance per day``."""
    owner = f"{scope} {subject}".rstrip()
    return f"budget of {owner}" + ("" if period == Period.NONE else f" per {period}")


def passed_thresholds(
    thresholds: Iterable[int], *, reached: int, spent_usd: Decimal, limit_usd: Decimal
) -> list[int]:
    """Return, in ascending order, the thresholds above ``reached`` that the spending has passed."""
    if not spent_usd:
        return []
    return [
        percent
        for percent in sorted(thresholds)
        if percent > reached and spent_usd * HUNDRED >= limit_usd * percent
    ]


def subjects_of(*, workflow: str, module: str, tenant: str | None) -> tuple[tuple[str, str], ...]:
    """Return the scope and subject of every standing budget that counts an agent's calls."""
    subjects = [
        (StandingScope.ALL, ""),
        (StandingScope.WORKFLOW, workflow),
        (StandingScope.MODULE, module),
    ]
    if tenant is not None:
        subjects.append((StandingScope.TENANT, tenant))
    return tuple((str(scope), subject) for scope, subject in subjects)

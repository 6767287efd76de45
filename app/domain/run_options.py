"""Options of one run, which are given when the run is enqueued and belong to no workflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.bounds import Bounds, find_problem
from app.domain.labels import check_labels
from app.domain.plain_text import find_name_problem
from app.domain.suggestions import shortened
from app.errors import WorkflowError

MAX_NAME = 200
_BOUNDS = {"weight": Bounds(low=0.001, high=1000)}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run.

    Example:
        RunOptions(tenant="acme", key="invoice-4711")

    Attributes:
        weight: The run's share of a rate limit, relative to the other runs that wait for the limit.
        tenant: The tenant of the run. The tenant's budgets count the cost of the run. The ledger
            names the tenant.
        key: A unique name for the run. If the key is already in use, no new run is created, and
            the caller gets the existing run.
        labels: Texts by key, such as ``{"team": "claims"}``, by which lists and reports of runs are
            filtered. The labels override the labels of the workflow.

    Raises:
        WorkflowError: If a value is out of its bounds.
    """

    weight: float = 1.0
    tenant: str | None = None
    key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if found := find_problem(vars(self), _BOUNDS):
            name, problem = found
            raise WorkflowError(f"{name} of the run {problem}", field=name)
        for name in ("tenant", "key"):
            value = getattr(self, name)
            if value is not None and not is_name(value):
                raise WorkflowError(
                    f"{name} of the run is {shortened(value)}: give a name of 1 to {MAX_NAME} "
                    "printable characters, or none at all",
                    field=name,
                )
        object.__setattr__(self, "labels", check_labels(self.labels))

    def check_tenant(self) -> None:
        """Refuse a tenant whose name looks like another name, before a program starts a run.

        A sub-run has the tenant of a stored run, whose name an earlier version has accepted. A key
        comes from a program's own data, such as the name of a file, so its spelling stays free.

        Raises:
            WorkflowError: If the name contains what cannot be seen.
        """
        if self.tenant is not None and (problem := find_name_problem(self.tenant)):
            raise WorkflowError(f"tenant of the run {problem}", field="tenant")


def is_name(value: object) -> bool:
    """Whether a value can be a key, or was once accepted as the name of a tenant."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and value == value.strip()
        and 1 <= len(value) <= MAX_NAME
    )

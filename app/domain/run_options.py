"""What is decided for one run when it is enqueued, and does not belong to its workflow."""

from dataclasses import dataclass

from app.domain.bounds import Bounds, find_problem
from app.errors import WorkflowError

MAX_TENANT = 200
_BOUNDS = {"weight": Bounds(low=0.001, high=1000)}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run.

    Attributes:
        weight: Its share of a rate limit, relative to the other runs that wait for it.
        tenant: Whom it is run for: budgets of that tenant count it, and the ledger names it.

    Raises:
        WorkflowError: If a value is out of its bounds.
    """

    weight: float = 1.0
    tenant: str | None = None

    def __post_init__(self) -> None:
        if found := find_problem(vars(self), _BOUNDS):
            name, problem = found
            raise WorkflowError(f"{name} of the run {problem}", field=name)
        if self.tenant is not None and not _is_name(self.tenant):
            raise WorkflowError(
                f"tenant of the run is {self.tenant!r}: give a name of 1 to {MAX_TENANT} printable "
                "characters, or none at all",
                field="tenant",
            )


def _is_name(tenant: str) -> bool:
    return tenant.isprintable() and tenant == tenant.strip() and 1 <= len(tenant) <= MAX_TENANT

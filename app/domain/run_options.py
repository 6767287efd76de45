"""What is decided for one run when it is enqueued, and does not belong to its workflow."""

from dataclasses import dataclass

from app.domain.bounds import Bounds, find_problem
from app.errors import WorkflowError

_BOUNDS = {"weight": Bounds(low=0.001, high=1000)}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run.

    Attributes:
        weight: Its share of a rate limit, relative to the other runs that wait for it.

    Raises:
        WorkflowError: If a value is out of its bounds.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        if found := find_problem(vars(self), _BOUNDS):
            name, problem = found
            raise WorkflowError(f"{name} of the run {problem}", field=name)

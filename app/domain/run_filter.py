"""A filter of runs: by tenant, by workflow and by labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.labels import find_key_problem, find_value_problem
from app.errors import WorkflowError


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """The conditions of a filter; a run is found if it fulfils all of them.

    Example:
        RunFilter(tenant="acme", labels={"team": "claims", "batch": None})

    Attributes:
        tenant: Name of the run's tenant.
        workflow: Name of the run's workflow.
        labels: Labels that the run has, by key. None as a value stands for any value.

    Raises:
        WorkflowError: If no run can have such a label.
    """

    tenant: str | None = None
    workflow: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.labels.items():
            if problem := find_key_problem(key):
                raise WorkflowError(f"no label can have the key {key!r}: it {problem}")
            if value is not None and (problem := find_value_problem(value)):
                raise WorkflowError(f"no label {key} can have this value, which {problem}")

    @property
    def exact_labels(self) -> dict[str, str]:
        """The labels of which the filter gives the value."""
        return {key: value for key, value in self.labels.items() if value is not None}

    @property
    def label_keys(self) -> list[str]:
        """The keys of the labels that may have any value."""
        return [key for key, value in self.labels.items() if value is None]


#: The filter that finds all runs.
EVERY_RUN = RunFilter()

"""The dimensions by which a report of costs is grouped, and the names that the caller gives."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.labels import find_key_problem
from app.domain.suggestions import did_you_mean, listed
from app.errors import ConfigurationError

#: The beginning of the dimension of a label, such as ``label:team``.
LABEL = "label:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """A dimension of a report.

    Attributes:
        columns: Columns of the lines by which the report is grouped.
        key: SQL expression for the name of a group.
        in_days: Whether the daily totals have the columns; otherwise the single lines are read.
        whole: Whether the dimension concerns whole runs, which contain the runs of their
            sub-workflows.
    """

    columns: tuple[str, ...]
    key: str
    in_days: bool = True
    whole: bool = False


#: The dimensions by name.
DIMENSIONS = {
    "agent": Dimension(columns=("agent",), key="agent", in_days=False),
    "module": Dimension(columns=("module",), key="module"),
    "model": Dimension(columns=("provider", "model"), key="provider || '/' || model"),
    "provider": Dimension(columns=("provider",), key="provider"),
    "workflow": Dimension(columns=("workflow",), key="workflow"),
    "outer-workflow": Dimension(
        columns=("outer_workflow",), key="outer_workflow", in_days=False, whole=True
    ),
    "version": Dimension(
        columns=("workflow", "version"), key="workflow || ' v' || coalesce(version::text, '?')"
    ),
    "tenant": Dimension(columns=("tenant",), key="coalesce(tenant, '-')"),
    "kind": Dimension(columns=("kind",), key="kind"),
    "run": Dimension(
        columns=("outer_run_id",), key="outer_run_id::text", in_days=False, whole=True
    ),
    "day": Dimension(columns=("day",), key="to_char(day, 'YYYY-MM-DD')"),
}
#: In a report about one run, each run inside it has a line of its own.
RUN_INSIDE = Dimension(columns=("run_id",), key="run_id::text", in_days=False)


def read_dimensions(given: Iterable[str]) -> tuple[str, ...]:
    """Return the names of dimensions, each once, in the given order.

    Args:
        given: Names; a text may have several names with commas between them.

    Raises:
        ConfigurationError: If there is no such dimension.

    Example:
        read_dimensions(["tenant,model", "label:team"])  # ("tenant", "model", "label:team")
    """
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    for name in names:
        if name in DIMENSIONS:
            continue
        if not name.startswith(LABEL):
            known = (*DIMENSIONS, f"{LABEL}KEY")
            hint = did_you_mean(name, known) or f"; known: {listed(known)}"
            raise ConfigurationError(f"costs have no dimension {name!r}{hint}")
        if problem := find_key_problem(name.removeprefix(LABEL)):
            raise ConfigurationError(f"no label can have the key of {name!r}: it {problem}")
    if not names:
        raise ConfigurationError(f"give a dimension of the costs: {listed(DIMENSIONS)}")
    return tuple(dict.fromkeys(names))

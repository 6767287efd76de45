"""The end of the demo: the costs, and a comparison of the costs with the simulator's records."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from app.cli.cluster import transaction
from app.cli.costs import cost_table
from app.cli.messages import tell
from app.cli.output import console
from app.costs.reports import CostLine, ReportFilter, costs_by, total_costs
from app.domain.counts import counted

COMPARED = ("requests", "input_tokens", "cached_tokens", "output_tokens")


def print_costs(run_id: UUID) -> list[CostLine]:
    """Print the run's cost by agent, module and model.

    Returns:
        The lines by model.
    """
    only = ReportFilter(run_id=run_id)
    total = transaction(partial(total_costs, only=only))
    lines: list[CostLine] = []
    printer = console()
    for by in ("agent", "module", "model"):
        lines = transaction(partial(costs_by, by=(by,), only=only))
        printer.print(
            cost_table(lines, total, (by,), title=f"Cost by {by}, from Postgres").without_wide()
        )
        printer.print()
    return lines


def compare_ledgers(lines: Sequence[CostLine], served: Mapping[str, Any]) -> bool:
    """Compare the ledger with the simulator's records, model by model, and print the result.

    Args:
        lines: The ledger by model.
        served: Summary of the simulator's records.

    Returns:
        Whether requests and tokens are equal.
    """
    theirs = {
        model: tuple(totals.get(name, 0) for name in COMPARED)
        for model, totals in served["by_model"].items()
    }
    ours = {
        line.key: (line.calls, line.input_tokens, line.cached_tokens, line.output_tokens)
        for line in lines
    }
    if ours == theirs and served["requests"] == sum(line.calls for line in lines):
        tell(
            f"The simulator served {counted(served['requests'], 'request')}, "
            f"{counted(sum(line.input_tokens for line in lines), 'input token')} and "
            f"{counted(sum(line.output_tokens for line in lines), 'output token')}: the ledger in "
            "Postgres "
            "says the same, model by model."
        )
        return True
    tell("The ledger in Postgres and the simulator's records DIFFER:")
    for model in sorted(ours.keys() | theirs.keys()):
        if ours.get(model) != theirs.get(model):
            tell(f"  {model}: {COMPARED} are {ours.get(model)} here, {theirs.get(model)} there")
    return False

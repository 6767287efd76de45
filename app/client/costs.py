"""Reports of the costs of one scope."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from app.client.runs import Runs
from app.client.transactions import Transactions
from app.costs.dimensions import read_dimensions
from app.costs.reports import EVERY_CALL, NO_COSTS, CostLine, ReportFilter, costs_by, total_costs
from app.domain.scope import Scope


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """A report of costs.

    Attributes:
        by: Names of the dimensions.
        lines: The lines, the highest cost first; ``CostLine.keys`` has a name for each dimension.
        total: The sum of all lines.
    """

    by: tuple[str, ...]
    lines: Sequence[CostLine]
    total: CostLine


class Costs:
    """Reports of the costs of one scope.

    Args:
        scope: The scope of the calls.
        transactions: The object that runs transactions in Postgres.
        runs: The runs of the scope.
    """

    def __init__(self, scope: Scope, transactions: Transactions, runs: Runs) -> None:
        self._scope = scope
        self._transactions = transactions
        self._runs = runs

    async def report(
        self, by: Sequence[str] = ("model",), only: ReportFilter = EVERY_CALL
    ) -> CostReport:
        """Return the costs by one or several dimensions.

        Args:
            by: Names of dimensions, such as ``["tenant", "label:team"]``.
            only: The calls that are counted. The calls of a tenant outside the scope are treated
                like calls that do not exist.

        Raises:
            ConfigurationError: If there is no such dimension.
            UnknownRun: If the scope has no such run.
        """
        dimensions = read_dimensions(by)
        if only.run_id is not None:
            await self._runs.read(only.run_id)
        if (tenant := self._scope.tenant) is not None:
            if only.runs.tenant not in (None, tenant):
                return CostReport(by=dimensions, lines=(), total=NO_COSTS)
            only = replace(only, runs=replace(only.runs, tenant=tenant))
        lines = await self._transactions.run(partial(costs_by, by=dimensions, only=only))
        total = await self._transactions.run(partial(total_costs, only=only))
        return CostReport(by=dimensions, lines=lines, total=total)

"""Explains that the workers lack the code which an agent names."""

from collections.abc import Collection, Iterator, Sequence

from app.domain.loaded import Loaded, unloaded_by
from app.domain.workflow import Workflow
from app.monitoring.findings import Finding, Reason


def explain_unloaded(
    workflow: Workflow, workers: Sequence[Loaded], open_: Collection[str]
) -> Iterator[Finding]:
    """Yield a finding for each tool, function and kind that no live worker of its queue loads.

    Args:
        workflow: The workflow of a run that goes on.
        workers: The names of the code that the live workers load.
        open_: Names of the agents that have not ended.
    """
    for agent in workflow.agents:
        for field, problem in unloaded_by(agent, workers) if agent.name in open_ else ():
            yield Finding(
                reason=Reason.NOT_LOADED,
                agents=(agent.name,),
                text=f"will fail: its {field} {problem}",
                remedy="start a worker that loads this code: list its module under imports",
            )

"""Facts of the cluster for a plan, if Postgres runs: earlier runs, and what workers load.

A plan needs no service. If Postgres cannot be reached, or if the built-in Postgres does not run,
the plan knows nothing of the cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from app.configuration.settings import Settings
from app.domain.earlier import Earlier
from app.domain.loaded import Loaded
from app.domain.workflow import Workflow
from app.embedded.connected import running_database
from app.storage.earlier import read_earlier
from app.storage.runs import with_stored_workflows
from app.storage.session import create_engine
from app.storage.worker_loads import read_live


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge:
    """What Postgres knows for a plan.

    Attributes:
        workflow: The workflow; definitions replace the names of stored sub-workflows.
        workers: The names of the code that the live workers load.
        earlier: Figures of earlier runs of the agents.
    """

    workflow: Workflow
    workers: Sequence[Loaded] = ()
    earlier: Earlier = field(default_factory=dict)


async def read_knowledge(settings: Settings, workflow: Workflow) -> Knowledge:
    """Return what Postgres knows; if Postgres cannot be read, only the workflow is known.

    Raises:
        WorkflowError: If Postgres has no workflow with the name of a sub-workflow.
    """
    nothing = Knowledge(workflow=workflow)
    url = running_database(settings)
    if url is None:
        return nothing
    engine = create_engine(url, application_name="agentchord plan", max_connections=1)
    try:
        async with engine.connect() as connection:
            whole = await with_stored_workflows(connection, workflow)
            return Knowledge(
                workflow=whole,
                workers=await read_live(connection),
                earlier=await read_earlier(connection, whole),
            )
    except (DBAPIError, OSError, TimeoutError):
        return nothing
    finally:
        await engine.dispose()

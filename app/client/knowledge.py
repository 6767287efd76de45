"""Facts of the cluster for a plan, if Postgres runs: the names of the code that workers load.

A plan needs no service. If Postgres cannot be reached, or if the built-in Postgres does not run,
the plan knows nothing of the cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from app.bootstrap import running_database
from app.configuration.settings import Settings
from app.domain.loaded import Loaded
from app.storage.session import create_engine
from app.storage.worker_loads import read_live


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge:
    """What Postgres knows for a plan.

    Attributes:
        workers: The names of the code that the live workers load.
        is_known: Whether Postgres was read.
    """

    workers: Sequence[Loaded] = ()
    is_known: bool = False


async def read_knowledge(settings: Settings) -> Knowledge:
    """Return what Postgres knows; an empty object if Postgres cannot be read."""
    url = running_database(settings)
    if url is None:
        return Knowledge()
    engine = create_engine(url, application_name="agentchord plan", max_connections=1)
    try:
        async with engine.connect() as connection:
            return Knowledge(workers=await read_live(connection), is_known=True)
    except (DBAPIError, OSError, TimeoutError):
        return Knowledge()
    finally:
        await engine.dispose()

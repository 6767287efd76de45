"""A hint that the workers still have the code that a user has changed since."""

import socket
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from uuid import UUID

from app.cli.cluster import ask
from app.cli.messages import say
from app.domain.loaded import Loaded, queues_with_code
from app.tools.sources import changed


def warn_of_old_code(run_id: UUID) -> None:
    """Say which files of a run's tools and functions are newer than the workers' code."""
    queues = queues_with_code(ask(lambda client: client.workflows.of_run(run_id)))
    workers = ask(lambda client: client.workflows.live_workers()) if queues else ()
    if files := old_files(workers, queues):
        it = "it" if len(files) == 1 else "them"
        say(
            f"the workers loaded {', '.join(files)} before you changed {it}: restart them, or run "
            "`agentchord up --reload`"
        )


def old_files(workers: Sequence[Loaded], queues: AbstractSet[str]) -> list[str]:
    """Return the files that have changed since a live worker of one of the queues loaded them.

    Only workers of this machine are looked at, because another machine has files of its own.
    """
    here = socket.gethostname()
    ours = [each for each in workers if each.host == here and not queues.isdisjoint(each.queues)]
    found = {path for worker in ours for path in changed(worker.files)}
    return [_shown(Path(path)) for path in sorted(found)]


def _shown(path: Path) -> str:
    folder = Path.cwd()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)

"""The Celery tasks: they are thin and idempotent, take ids and return nothing.

The tasks never raise an error to Celery. An error of an agent is recorded with the agent. Any other
error of a lane is logged, and the watchdog sends the lane again.
"""

from uuid import UUID

import structlog

from app.celery import ADVANCE, LANE, LANES, app
from workers import lifecycle

log = structlog.get_logger(__name__)


@app.task(name=LANE, ignore_result=True, Request="workers.requests:NamedRequest")
def lane(run_id: str, level: int, provider: str, width: int) -> None:
    """Run up to ``width`` agents of a run's level at the same time, on this provider's queue."""
    try:
        lifecycle.runtime().run(
            lifecycle.runtime().lane(UUID(run_id), int(level), str(provider), int(width))
        )
    except Exception:
        log.exception("lane_failed", run_id=run_id, level=level, provider=provider)


@app.task(name=LANES, ignore_result=True, Request="workers.requests:NamedRequest")
def lanes(provider: str, lanes: list[tuple[str, int, int]]) -> None:
    """Run several lanes on this provider's queue; each lane is given as run id, level and width."""
    try:
        given = [(UUID(run_id), int(level), int(width)) for run_id, level, width in lanes]
        lifecycle.runtime().run(lifecycle.runtime().lanes(str(provider), given))
    except Exception:
        log.exception("lane_failed", lanes=lanes, provider=provider)


@app.task(name=ADVANCE, ignore_result=True, Request="workers.requests:NamedRequest")
def advance(run_id: str, level: int | None = None) -> None:
    """Advance a run if this level is done; if the level is None, admit the run."""
    try:
        lifecycle.runtime().run(
            lifecycle.runtime().advance(UUID(run_id), None if level is None else int(level))
        )
    except Exception:
        log.exception("advance_failed", run_id=run_id, level=level)

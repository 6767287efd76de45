"""`agentchord watch`: one run in a picture that fits the screen, until the run has ended."""

import asyncio
import contextlib
import sys
from dataclasses import replace
from functools import partial
from typing import Annotated
from uuid import UUID

import typer

from app.cli.cluster import find, transaction
from app.cli.follow import exit_code, follow, wait_for_end
from app.cli.live_state import queues_of, read_live
from app.cli.messages import tell
from app.cli.parameters import RunId
from app.cli.progress_views import LineView, summary
from app.cli.watch_view import WatchView
from app.errors import ServiceUnavailable
from app.monitoring.activity import read_activity
from app.monitoring.progress import RunProgress

#: Seconds between two reads of the run's activity.
LOOK_S = 1.0
#: The workers are asked for their queues once in this number of reads.
ASK_EVERY = 5


def watch(
    run: RunId,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Stop watching after this many seconds; the run goes on."),
    ] = None,
) -> int:
    """Watch a run live: levels, agents, cost and waits.

    In a pipe, the command prints the lines of `agentchord status --follow`. The exit code is 0 if
    the run has completed, 3 if it has completed partially, 1 if it has failed or was cancelled, and
    4 if it was still going when --timeout was over.
    """
    run_id = find(run)

    async def on_screen() -> RunProgress:
        with WatchView() as view:
            looking = asyncio.create_task(_look(run_id, view))
            try:
                return await follow(run_id, view, timeout_s=timeout)
            finally:
                looking.cancel()
                await asyncio.wait([looking])

    if not sys.stdout.isatty():
        return exit_code(wait_for_end(run_id, follow(run_id, LineView(), timeout_s=timeout)))
    ended = wait_for_end(run_id, on_screen())
    if ended is not None:
        tell(summary(ended))
    return exit_code(ended)


async def _look(run_id: UUID, view: WatchView) -> None:
    """Update the picture regularly with the activity of the run."""
    asked, unserved = 0, frozenset[str]()
    while True:
        with contextlib.suppress(ServiceUnavailable):  # ``follow`` reports the error
            reading = partial(read_activity, run_id=run_id)
            activity = await asyncio.to_thread(transaction, reading)
            queues = queues_of(activity.history.standing)
            ask = asked % ASK_EVERY == 0
            live, _ = await asyncio.to_thread(read_live, queues, ask_workers=ask)
            unserved = live.unserved if ask else unserved
            view.update(activity, replace(live, unserved=unserved))
            asked += 1
        await asyncio.sleep(LOOK_S)

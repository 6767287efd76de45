"""A progress bar for steps that take longer than two seconds."""

import sys
import time
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from app.cli.output import console

#: If a step takes less time, no bar appears.
MAX_WAIT_S = 2.0


class ProgressBar:
    """A bar on standard error, if standard error is a terminal; use the bar as a context manager.

    Args:
        title: Name of the counted things, such as ``runs``.
        total: Number of the counted things.
        max_wait_s: Seconds before the bar appears.
    """

    def __init__(self, title: str, total: int, *, max_wait_s: float = MAX_WAIT_S) -> None:
        self._shown_from_s = time.monotonic() + max_wait_s
        self._progress = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def advance(self, done: int) -> None:
        """Add a number of things that are done."""
        self._progress.advance(self._task, done)
        if time.monotonic() >= self._shown_from_s and sys.stderr.isatty():
            self._progress.start()

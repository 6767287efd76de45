"""A progress bar for steps that take longer than two seconds."""

import sys
import time
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

from app.cli.output import console

#: Shorter steps need no bar.
MAX_WAIT_S = 2.0


class ProgressBar:
    """A bar on standard error, if that is a terminal; use it as a context manager.

    Args:
        title: Name of what is counted.
        total: How many there are.
        max_wait_s: Seconds before the bar appears.
    """

    def __init__(self, title: str, total: int, *, max_wait_s: float = MAX_WAIT_S) -> None:
        self._title, self._total = title, total
        self._shown_from_s = time.monotonic() + max_wait_s
        self._done = 0
        self._shown: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown[0].stop()

    def advance(self, done: int) -> None:
        """Add to what is done."""
        self._done += done
        if self._shown is None and time.monotonic() >= self._shown_from_s and sys.stderr.isatty():
            self._shown = self._start()
        if self._shown is not None:
            progress, task = self._shown
            progress.update(task, completed=self._done)

    def _start(self) -> tuple[Progress, TaskID]:
        progress = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        )
        progress.start()
        return progress, progress.add_task(self._title, total=self._total)

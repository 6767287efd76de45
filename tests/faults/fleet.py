"""A stack for all tests of a module: workers that a test has ended are started for the next."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.support.stack import CONFIGURATION, Stack, Worker, run_stack
from tests.support.waiting import wait_until

SCHEDULER = ("scheduler",)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A stack, and the workers that should run in it.

    Attributes:
        stack: Its ``workers`` are the scheduler's and those of the posts, in their order.
        posts: The queues of each worker beside the scheduler's.
        numbers: Numbers of the workers that had the same post.
    """

    stack: Stack
    posts: tuple[tuple[str, ...], ...]
    numbers: Iterator[int]

    def staff(self) -> None:
        """Start a worker in the place of each that has ended, and reset the simulator."""
        with ThreadPoolExecutor() as side_by_side:
            self.stack.workers[:] = side_by_side.map(self._at_post, range(1 + len(self.posts)))
        self.stack.simulator.reset()

    def _at_post(self, place: int) -> Worker:
        """The running worker, or else a new one."""
        if place < len(self.stack.workers):
            worker = self.stack.workers[place]
            if worker.process.poll() is None:
                return worker
            worker.kill()
        return self._start((SCHEDULER, *self.posts)[place])

    def _start(self, queues: tuple[str, ...]) -> Worker:
        return self.stack.start_worker(*queues, name=f"post{next(self.numbers)}")


@contextmanager
def run_fleet(
    folder: Path, *posts: tuple[str, ...], configuration: str = CONFIGURATION
) -> Iterator[Fleet]:
    """A scheduler and these workers; all their processes are ended afterwards.

    Args:
        folder: Folder of all its files.
        *posts: The queues of each worker beside the scheduler's.
        configuration: The YAML file.
    """
    with run_stack(folder, *SCHEDULER, configuration=configuration) as stack:
        (scheduler,) = stack.workers
        fleet = Fleet(stack=stack, posts=posts, numbers=count())
        try:
            yield fleet
        finally:
            for worker in stack.workers:
                if worker is not scheduler:
                    worker.stop()
            stack.workers[:] = [scheduler]
    wait_until(lambda: not _processes_of(folder), what=f"{_processes_of(folder)} have ended")


def _processes_of(folder: Path) -> str:
    """Ids of the processes whose command line names the folder."""
    found = subprocess.run(
        ["pgrep", "-f", str(folder)], check=False, capture_output=True, text=True
    )
    return found.stdout

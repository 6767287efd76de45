"""A program whose threads all make the first call of their process at the same moment.

``python -m tests.support.first_calls RUN_ID FORKS THREADS [used]`` prints a line for each process.
Without forks, the program itself is that process, and its threads also import the application. With
``used``, the parent uses its client before it forks.
"""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable

from tests.support.pace import scaled

#: Seconds after which a process with a call that does not return is ended.
STUCK_S = scaled(60)


def _status(run_id: str) -> str:
    from app import Run

    run = Run(run_id)
    assert run.status
    return run.id


def _enqueue(run_id: str) -> str:
    from app import Run, enqueue

    return enqueue(Run(run_id).to_workflow(), key="first").id


def _enqueue_async(run_id: str) -> str:
    from app import Run, enqueue_async

    async def enqueued() -> str:
        workflow = await asyncio.to_thread(Run(run_id).to_workflow)
        return (await enqueue_async(workflow, key="first")).id

    return asyncio.run(enqueued())


def _events(run_id: str) -> str:
    from app import Run

    run = Run(run_id)
    assert next(iter(run.events())).id
    return run.id


CALLS: tuple[Callable[[str], str], ...] = (_status, _enqueue_async, _events, _enqueue)


def first_calls(run_id: str, threads: int) -> int:
    """Make the first calls of this process; return the exit code, which is 0 if all is well."""
    start = threading.Barrier(threads)
    returned: list[str] = []

    def caller(number: int) -> None:
        start.wait()
        try:
            returned.append(CALLS[number % len(CALLS)](run_id))
        except BaseException:  # noqa: BLE001  the output shows every error
            traceback.print_exc()

    callers = [threading.Thread(target=caller, args=(n,), daemon=True) for n in range(threads)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(STUCK_S)
    from app.client.process import process

    loops = [thread for thread in threading.enumerate() if thread.name == "agentchord client"]
    sys.stdout.write(f"{len(returned)} of {threads} calls returned, {len(loops)} loops\n")
    sys.stdout.flush()
    well = returned == [run_id] * threads and len(loops) == 1 and process() is process()
    return 0 if well else 1


def in_child(run_id: str, threads: int) -> int:
    """Fork a child that makes its first calls and then ends as Python programs end."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(first_calls(run_id, threads))


def main(run_id: str, forks: int, threads: list[int], *, used: bool) -> int:
    """Return 0 if all calls of all processes returned."""
    if not forks:
        return first_calls(run_id, threads[0])
    import app.client.run

    if used:
        assert list(app.client.run.Run(run_id).events())
    return sum(in_child(run_id, threads[n % len(threads)]) != 0 for n in range(forks))


if __name__ == "__main__":
    _, given_id, given_forks, given_threads, *words = sys.argv
    numbers = [int(number) for number in given_threads.split(",")]
    sys.exit(main(given_id, int(given_forks), numbers, used="used" in words))

"""The command lines of workers."""

#: The beginning of a worker's command line.
WORKER = ("-A", "app", "--quiet", "worker")


def worker_arguments(queues: tuple[str, ...], *, threads: int, name: str) -> tuple[str, ...]:
    """Return the command line of a plain Celery worker, without the program.

    Args:
        queues: Queues that the worker serves.
        threads: Number of lanes that the worker runs at the same time.
        name: First part of the worker's node name.
    """
    return (
        *(*WORKER, "-Q", ",".join(queues), "-P", "threads"),
        *("-c", str(threads), "-n", f"{name}@%h"),
        # AgentChord does not use mingle and gossip, which cost a second at the start and messages
        # later.
        *("--without-mingle", "--without-gossip"),
    )

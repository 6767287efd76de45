"""The current state of the cluster, as far as Redis and the workers answer."""

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.cli.cluster import ask, served_queues
from app.errors import ServiceUnavailable
from app.monitoring.explain import Live
from app.monitoring.run_facts import Standing


def read_live(queues: set[str], *, ask_workers: bool = True) -> tuple[Live, list[str]]:
    """Return the live state, and one line for each part that could not be read.

    Args:
        queues: The queues of the agent runs that the caller shows.
        ask_workers: Whether to ask the workers for their queues; this takes half a second.
    """
    table = ask(lambda client: client.limits.read())
    try:
        buckets = ask(lambda client: client.live_state.buckets())
        circuits = ask(lambda client: client.live_state.circuits())
        unserved = queues - served_queues(queues) if ask_workers and queues else set()
    except ServiceUnavailable as error:
        return Live(), [f"{error}; calls wait for it"]
    except (OperationalError, RedisError, OSError) as error:
        return Live(), [f"Redis cannot be reached ({error}): calls wait for it"]
    return (
        Live(
            buckets={bucket["bucket"]: bucket for bucket in buckets},
            bucket_of=lambda provider, model: table.resolve(provider, model)[0],
            circuits=circuits,
            unserved=frozenset(unserved),
        ),
        [],
    )


def queues_of(standing: tuple[Standing, ...]) -> set[str]:
    """Return the queues that these agent runs need, and the scheduler's queue."""
    return {one.provider for one in standing} | ({"scheduler"} if standing else set())

"""The cluster's state at this moment, as far as Redis and the workers answer."""

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.cli.cluster import connect, served_queues
from app.errors import ServiceUnavailable
from app.monitoring.explain import Live
from app.monitoring.run_history import RunHistory, Standing


def read_live(queues: set[str], *, ask_workers: bool = True) -> tuple[Live, list[str]]:
    """Return the live state, and one line for each part that could not be read.

    Args:
        queues: The queues that matter.
        ask_workers: Whether to ask the workers which queues they serve, which takes half a second.
    """
    connected = connect()
    table = connected.loop.run(connected.client.limits.read())
    live_state = connected.client.live_state
    try:
        buckets = {bucket["bucket"]: bucket for bucket in connected.loop.run(live_state.buckets())}
        circuits = connected.loop.run(live_state.circuits())
        unserved = queues - served_queues(queues) if ask_workers and queues else set()
    except ServiceUnavailable as error:
        return Live(), [f"{error}; calls wait for it"]
    except (OperationalError, RedisError, OSError) as error:
        return Live(), [f"Redis cannot be reached ({error}): calls wait for it"]
    return (
        Live(
            buckets=buckets,
            bucket_of=lambda provider, model: table.resolve(provider, model)[0],
            circuits=circuits,
            unserved=frozenset(unserved),
        ),
        [],
    )


def queues_of(history: RunHistory) -> set[str]:
    """Return the queues that unfinished agents need, and the scheduler's."""
    return queues_of_standing(history.standing)


def queues_of_standing(standing: tuple[Standing, ...]) -> set[str]:
    """Return the queues of agent runs, and the scheduler's."""
    return {one.provider for one in standing} | ({"scheduler"} if standing else set())

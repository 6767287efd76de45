"""The additions to a worker of the fault suite: it takes orders.

Run as ``python -m tests.faults.seams SOCKET ORDERS`` and then the arguments of
``app.local_stack.supervised``. ORDERS, in JSON, are the first ones; others arrive on the Unix
socket. They let the process die at a boundary, set its clock wrong, lose and double the messages
it sends, or switch off a part of the protocol: from outside these moments could not be hit. The
product has nothing of this; its classes are wrapped here.
"""

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Client, Listener
from pathlib import Path
from socket import socket
from typing import Any

#: Boundaries at which an order may let a process die: after the commit of a claim, after that of a
#: hold, after the request was sent, after its answer came, and before the commit of a record.
BOUNDARIES = ("claim", "hold", "send", "response", "record")
#: Parts of the protocol that may be switched off, to check that the suite notices.
FENCING, WATCHDOG = "fencing", "watchdog"
LATE_S = 0.3


@dataclass
class Orders:
    """The orders of this process; none at first.

    Attributes:
        clock_s: Seconds by which its clock is ahead.
        die_at: A boundary.
        passings: Number of times that the process passes the boundary alive.
        lost: Share of the messages that are lost, 0 to 1.
        doubled: Share that is sent twice.
        late: Share that is sent after the next message.
        seed: Seed of these shares.
        broken: Part that is switched off: FENCING or WATCHDOG.
    """

    clock_s: float = 0.0
    die_at: str = ""
    passings: int = 0
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    seed: int = 0
    broken: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    chances: random.Random = field(default_factory=random.Random, repr=False)

    def take(self, changes: Mapping[str, Any]) -> None:
        """Replace the last orders."""
        with self.lock:
            for name, value in vars(Orders()).items():
                if name not in ("lock", "chances"):
                    setattr(self, name, changes.get(name, value))
            self.chances.seed(self.seed)

    def pass_boundary(self, name: str) -> None:
        """Die here, if that was the order."""
        with self.lock:
            if self.die_at != name:
                return
            self.passings -= 1
            if self.passings < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def copies(self) -> tuple[int, bool]:
        """Return how often the next message is sent, and whether late."""
        with self.lock:
            chance = self.chances.random()
            late = self.chances.random() < self.late
        if chance < self.lost:
            return 0, late
        return (2 if chance < self.lost + self.doubled else 1), late


def give(address: Path, **changes: Any) -> None:
    """Give a worker its orders; they are in force when this returns.

    Args:
        address: Socket of the worker.
        **changes: Attributes of ``Orders``; the others are reset.
    """
    with Client(str(address)) as connection:
        connection.send(changes)
        connection.recv()


def disturb_messages(orders: Orders) -> Callable[[], None]:
    """Let this process lose, double and delay messages; return the function that ends that.

    Chords go through kombu, the other messages through the dispatcher, and requests for admission
    are publications.
    """
    ends = [_disturb_kombu(orders), _disturb_dispatcher(orders), _disturb_requests(orders)]

    def end() -> None:
        for each in ends:
            each()

    return end


def _disturb_kombu(orders: Orders) -> Callable[[], None]:
    from kombu.transport.redis import Channel

    transport: Any = Channel
    put = transport._put

    def disturbed(channel: Any, queue: str, message: Any, **how: Any) -> None:
        count, late = orders.copies()
        for _ in range(count):
            if late:
                timer = threading.Timer(LATE_S, put, (channel, queue, message))
                timer.daemon = True
                timer.start()
            else:
                put(channel, queue, message, **how)

    transport._put = disturbed
    return lambda: setattr(transport, "_put", put)


def _disturb_dispatcher(orders: Orders) -> Callable[[], None]:
    from app.scheduler.dispatch import Dispatcher

    dispatcher: Any = Dispatcher
    send = dispatcher._send
    delayed: set[asyncio.Task[None]] = set()

    async def send_later(self: Any, sending: Any) -> None:
        await asyncio.sleep(LATE_S)
        await send(self, [sending])

    async def disturbed(self: Any, sendings: Sequence[Any]) -> None:
        for each in sendings:
            count, late = orders.copies()
            for _ in range(count):
                if late:
                    delayed.add(asyncio.create_task(send_later(self, each)))
                else:
                    await send(self, [each])

    dispatcher._send = disturbed
    return lambda: setattr(dispatcher, "_send", send)


def _disturb_requests(orders: Orders) -> Callable[[], None]:
    from app.scheduler.asks import Asks

    asks: Any = Asks
    send = asks.send

    async def disturbed(self: Any) -> bool:
        count, _ = orders.copies()
        return bool(await send(self)) if count else True  # lost, although a scheduler listens

    asks.send = disturbed
    return lambda: setattr(asks, "send", send)


def _bend_clock(orders: Orders) -> None:
    """Give every reader of the time of day the ordered error."""
    right = time.time
    time.time = lambda: right() + orders.clock_s
    from uuid_utils.compat import uuid7

    import app.costs.pricing
    import app.llm.headers
    import workers.calls.provider
    import workers.pipeline

    class Bent(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=orders.clock_s)

    modules: tuple[Any, ...] = (app.costs.pricing, app.llm.headers, workers.pipeline)
    for module in modules:
        module.datetime = Bent
    calls: Any = workers.calls.provider
    calls.uuid7 = lambda: uuid7(nanoseconds=int(time.time() * 1e9))


def _watch_boundaries(orders: Orders) -> None:
    from app.rate_limits.limiter import ClusterLimiter
    from app.storage.group_commit import GroupCommit

    commit: Any = GroupCommit._commit
    mark_sent, settle = ClusterLimiter.mark_sent, ClusterLimiter.settle

    async def watched_commit(group: Any, items: Any) -> Any:
        if group._name == "record" and any(item.record.ending for item in items):
            # The batch's writes are in a transaction that will not be committed.
            group = _Dying(group, orders)
        results = await commit(group, items)
        if group._name == "hold":
            orders.pass_boundary("hold")
        elif any(_has_claimed(one) for one in results):
            orders.pass_boundary("claim")
        return results

    async def watched_mark_sent(limiter: Any, permit: Any) -> None:
        await mark_sent(limiter, permit)
        # The callback comes before the last bytes are written.
        timer = threading.Timer(0.02, orders.pass_boundary, ("send",))
        timer.daemon = True
        timer.start()

    def watched_settle(limiter: Any, permit: Any, **how: Any) -> None:
        if how.get("usage") is not None:
            orders.pass_boundary("response")
        settle(limiter, permit, **how)

    group_commit: Any = GroupCommit
    limiter: Any = ClusterLimiter
    group_commit._commit = watched_commit
    limiter.mark_sent, limiter.settle = watched_mark_sent, watched_settle


def _has_claimed(result: Any) -> bool:
    """Whether a result of a batch has claimed agents: a first claim, or one after a step."""
    parts = [result, getattr(result, "claim", None), getattr(result, "move", None)]
    return any(getattr(part, "agents", ()) for part in parts)


class _Dying:
    """A group commit whose statements are followed by a boundary."""

    def __init__(self, group: Any, orders: Orders) -> None:
        self._engine, self._name = group._engine, group._name
        self._group, self._orders = group, orders

    async def _statements(self, connection: Any, items: Any) -> Any:
        results = await self._group._statements(connection, items)
        self._orders.pass_boundary("record")
        return results


def _break_promises(orders: Orders) -> None:
    """Switch off fencing or the watchdog by an order.

    Without fencing every record counts, also one of an attempt that has lost the agent, and workers
    do not learn of lost agents. Without the watchdog lost agents are not found.
    """
    from app.scheduler.watchdog import Watchdog
    from app.storage import fetch as fetching
    from app.storage import records, statements
    from workers import inflight

    fetch, renewed = fetching.fetch, inflight.InFlight.renewed
    look = Watchdog.look

    async def fetch_or_own(connection: Any, statement: Any, values: Any) -> Any:
        rows = await fetch(connection, statement, values)
        if orders.broken != FENCING or statement is not statements.LOCK_AGENT_RUNS:
            return rows
        return [_Owned(row.id) for row in rows]

    def hear(held: Any, asked: Any, answer: Any) -> None:
        known = asked
        if orders.broken == FENCING:
            known = {id_: attempt for id_, attempt in asked.items() if id_ in answer}
        renewed(held, known, answer)

    async def look_or_not(watchdog: Any) -> None:
        if orders.broken != WATCHDOG:
            await look(watchdog)

    modules: tuple[Any, ...] = (records, inflight.InFlight, Watchdog)
    modules[0].fetch, modules[1].renewed, modules[2].look = fetch_or_own, hear, look_or_not


class _Owned:
    """A row in which the attempt that asks owns the agent."""

    def __init__(self, id_: Any) -> None:
        self.id, self.attempt, self.status = id_, _EqualToAll(), "running"


class _EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def _take_orders(listener: Listener, orders: Orders) -> None:
    while True:
        with listener.accept() as connection:
            orders.take(connection.recv())
            connection.send("done")


def main(address: str, first: Mapping[str, Any], arguments: list[str]) -> None:
    """Run a worker that takes orders.

    Args:
        address: Path of the socket for orders.
        first: The first orders.
        arguments: FD, GRACE_S and the command line of ``celery``.
    """
    orders = Orders()
    orders.take(first)
    _break_promises(orders)
    _bend_clock(orders)
    _watch_boundaries(orders)
    disturb_messages(orders)
    Path(address).unlink(missing_ok=True)
    listener = Listener(address)
    threading.Thread(target=_take_orders, args=(listener, orders), daemon=True).start()
    from app.local_stack.supervised import run

    run(socket(fileno=int(arguments[0])), float(arguments[1]), arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:])

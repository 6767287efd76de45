"""The heartbeat: renews the leases of this process, in a thread that nothing on the loop delays."""

import asyncio
import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import DBAPIError

from app.storage.leases import renew_leases
from app.storage.session import LOOKUP_SETTINGS, create_sync_engine
from workers.inflight import InFlight

#: A loop that has not run for this number of seconds is blocked, and not only slow.
BLOCKED_S = 60.0

log = structlog.get_logger(__name__)


class Heartbeat:
    """Renews all leases with one statement every few seconds.

    The statement also returns the leases whose runs are paused or have to stop.

    Its weakness: if a C extension keeps Python's interpreter lock for longer than a lease lasts,
    this thread stops, too. Then the leases are lost. The alternative, a separate process, could not
    see whether the worker still runs.

    Args:
        url: URL of Postgres; the thread has a connection of its own.
        inflight: The leases of this process.
        loop: The loop that owns the leases.
        lease_s: Seconds for which a lease is valid.
        beat_s: Seconds between two beats.
        on_death: Called if the thread cannot go on; then all leases of the process will be lost.

    Example:
        heartbeat = Heartbeat(url, inflight, loop, lease_s=15.0, beat_s=5.0, on_death=end_process)
        heartbeat.start()
        signals.on_stop(heartbeat.beat_now)
    """

    def __init__(
        self,
        url: str,
        inflight: InFlight,
        loop: asyncio.AbstractEventLoop,
        *,
        lease_s: float,
        beat_s: float,
        on_death: Callable[[], None],
    ) -> None:
        self._engine = create_sync_engine(
            url,
            application_name="agentchord heartbeat",
            session_settings=LOOKUP_SETTINGS | {"lock_timeout": "3s"},
            pool_size=1,
        )
        self._inflight = inflight
        self._loop = loop
        self._lease_s = lease_s
        self._beat_s = beat_s
        self._on_death = on_death
        self._wake = threading.Event()
        self._stopped = False
        self._loop_seen_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def beat_now(self) -> None:
        """Beat at once, because a signal says that a run has to stop."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread and close its connection."""
        self._stopped = True
        self._wake.set()
        self._thread.join(timeout=10)
        self._engine.dispose()

    def _loop_is_alive(self) -> None:
        self._loop_seen_s = time.monotonic()

    def _run(self) -> None:
        try:
            self._beat_until_stopped()
        except BaseException:  # noqa: BLE001  code of a user can raise it in any thread
            try:
                log.exception("heartbeat_ended")
            finally:
                self._on_death()

    def _beat_until_stopped(self) -> None:
        while not self._stopped:
            self._wake.wait(self._beat_s)
            self._wake.clear()
            self._loop.call_soon_threadsafe(self._loop_is_alive)
            held = self._inflight.held()
            if not held or self._stopped:
                continue
            if time.monotonic() - self._loop_seen_s > BLOCKED_S:
                # The loop's calls can neither end nor be stopped, so let other workers take the
                # agents.
                log.error("loop_blocked", leases=len(held), seconds=BLOCKED_S)
                continue
            try:
                with self._engine.begin() as connection:
                    answer = renew_leases(connection, held, lease_s=self._lease_s)
            except DBAPIError as error:
                # Calls in flight go on, because a lease can still be renewed if no other worker has
                # taken over the agent.
                log.warning("heartbeat_failed", leases=len(held), error=str(error.orig))
                continue
            self._loop.call_soon_threadsafe(self._inflight.renewed, held, answer)

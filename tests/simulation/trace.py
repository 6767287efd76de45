"""The steps of a simulation in order: the last steps as lines, and all steps as a digest."""

import hashlib
import sys
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import structlog
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from app.storage.group_commit import is_transient
from tests.simulation.loop import CURRENT, VirtualLoop

KEPT = 300
#: Names of events in logs. No fault explains these events, unless the error comes from a service
#: that is away.
ALARMS = {
    "agent_crashed",
    "record_refused",
    "watchdog_failed",
    "lanes_not_sent",
    "scheduler_not_told",
    "deferred_failed",
    "background_step_failed",
    "batch_failed",
    "call_above_its_hold",
    "lane_failed",
    "advance_failed",
}


class Trace:
    """Lines with time, process and step; names in the lines stand for ids."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT)
        self.alarms: list[str] = []
        self.loop: VirtualLoop
        self._digest = hashlib.sha256()
        self._names: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """The digest, which is equal for two simulations with the same steps in the same order."""
        return self._digest.hexdigest()[:16]

    def name(self, id_: UUID | str, name: str) -> None:
        """Call an id by a name from now on."""
        self._names[str(id_)] = name

    def called(self, id_: UUID | str) -> str:
        """Return the name of an id."""
        return self._names.get(str(id_), str(id_))

    def count(self, what: str) -> None:
        """Add a step that is too frequent for a line; only the digest contains this step."""
        self._digest.update(f"{self.loop.time():.6f}{CURRENT.get()}{what};".encode())

    def tell(self, what: str) -> None:
        """Add a line."""
        line = f"{self.loop.time():9.4f}  {CURRENT.get() or 'world'!s:10}  {what}"
        self._digest.update(line.encode())
        self.lines.append(line)

    def alarm(self, what: str) -> None:
        """Add a line about an error; a simulation with such a line fails."""
        self.tell(what)
        self.alarms.append(what)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Copy the product's log into the trace."""
        before = structlog.get_config()
        structlog.configure(processors=[self._take], cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)

    def _take(self, _: Any, level: str, fields: MutableMapping[str, Any]) -> Any:
        event = str(fields.pop("event"))
        error = fields.pop("exc_info", None)
        if error is True:
            error = sys.exc_info()[1]
        about = " ".join(
            f"{key}={self.called(value)}"
            for key, value in fields.items()
            if key in ("run_id", "agent", "attempt", "reason", "doing", "agents", "error")
        )
        text = f"{event} {about}" + (f" {type(error).__name__}: {error}" if error else "")
        if event in ALARMS and not is_an_outage(error):
            self.alarm(text)
        else:
            self.tell(text)
        raise structlog.DropEvent


def is_an_outage(error: object) -> bool:
    """Return whether the cause of an exception is a service that is away."""
    if isinstance(error, DBAPIError):
        return is_transient(error)
    return isinstance(error, (RedisError, BrokerError))

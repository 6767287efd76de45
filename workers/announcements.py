"""Announces agent runs to Celery's event stream, so that Flower shows agents and not only lanes.

Each agent run is a task ``agent.<name>`` whose id is the agent run's. The events leave in batches
through a bounded queue and one thread, never on the loop; when the queue is full they are dropped
and counted, because the history is in Postgres anyway.
"""

import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.domain.status import AgentStatus
from app.storage.records import CallRecord, Ending
from workers.jobs import Job

MAX_QUEUED = 20_000
FLUSH_S = 0.2
EVENT_OF_STATUS = {
    AgentStatus.COMPLETED: "task-succeeded",
    AgentStatus.SKIPPED: "task-succeeded",
    AgentStatus.PENDING: "task-retried",
    AgentStatus.WAITING: "task-succeeded",  # others go on with it, each a task of its own
    AgentStatus.CANCELLED: "task-revoked",
}

log = structlog.get_logger(__name__)
Announcement = tuple[str, dict[str, Any]]


class Announcements:
    """Tells whoever watches; never slows down the work.

    Args:
        celery: The Celery instance.
        hostname: Node name of this worker, as Flower lists it.
    """

    def __init__(self, celery: Celery, hostname: str) -> None:
        self._celery = celery
        self._hostname = hostname
        self._queue: queue.Queue[Announcement | None] = queue.Queue(MAX_QUEUED)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcements", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is queued and end the thread."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(timeout=5)

    def started(self, job: Job) -> None:
        """An attempt has started. Neither prompt nor input is told."""
        uuid, now = str(job.claimed.id), job.started_at
        about = {
            "uuid": uuid,
            "name": f"agent.{job.agent.name}",
            "args": "()",
            "kwargs": f"run_id={job.run.run_id} model={job.agent.model}",
            "root_id": str(job.run.run_id),
            "parent_id": None,
            "retries": job.claimed.retries,
            "eta": None,
            "expires": None,
            "timestamp": now,
        }
        self._put("task-received", about)
        self._put("task-started", {"uuid": uuid, "timestamp": now})

    def ended(self, job: Job, ending: Ending, calls: Sequence[CallRecord]) -> None:
        """An attempt has ended and is recorded."""
        uuid, now = str(job.claimed.id), time.time()
        kind = EVENT_OF_STATUS.get(ending.status, "task-failed")
        fields: dict[str, Any] = {"uuid": uuid, "timestamp": now, "runtime": now - job.started_at}
        if kind == "task-succeeded":
            fields["result"] = f"${sum(call.cost_usd for call in calls):f}"
        elif kind == "task-revoked":
            fields |= {"terminated": False, "signum": None, "expired": False}
        else:
            reason = f"waits for {ending.waits_for}" if ending.waits_for else ending.outcome
            if ending.error_class:
                reason = f"{ending.error_class}: {ending.error}"
            fields |= {"exception": reason, "traceback": ""}
        self._put(kind, fields)

    def _put(self, kind: str, fields: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait((kind, fields))
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        with (
            self._celery.connection_for_write() as connection,
            self._celery.events.Dispatcher(
                connection, hostname=self._hostname, buffer_group={"task"}, buffer_limit=1000
            ) as dispatcher,
        ):
            while self._forward(dispatcher):
                try:
                    dispatcher.flush()
                except (OSError, OperationalError) as error:
                    log.warning("announcements_not_sent", error=str(error))

    def _forward(self, dispatcher: Any) -> bool:
        """Move what is queued into the dispatcher's buffer; False once told to stop."""
        item = self._queue.get()
        self._stopping.wait(FLUSH_S)  # let a batch gather: one message carries all of it
        while item is not None:
            kind, fields = item
            dispatcher.send(kind, **fields)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return True
        return False

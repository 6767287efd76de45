"""Sends agent runs to Celery's event stream, so that Flower shows agents and not only lanes.

In Flower, each agent run is a task ``agent.<name>`` with the id of the agent run. A thread sends
the events in batches from a bounded queue; the loop never sends events.

Flower always shows names, ids, states, times, models and costs. If the configuration says so,
Flower also shows prompts, answers and the texts of errors. The text of an error may repeat a prompt
or an answer.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.domain.events import RunEvent
from app.domain.for_each import agent_of
from app.domain.plain_text import shown
from app.domain.status import AgentStatus
from app.errors import RecoveriesExhausted
from app.storage.records import Ending
from workers.jobs import Job

MAX_QUEUED = 20_000
FLUSH_S = 0.2
#: Flower shows at most this number of characters of a prompt, an output or an error.
MAX_CHARS = 2000
EVENT_OF_STATUS = {
    AgentStatus.COMPLETED: "task-succeeded",
    AgentStatus.SKIPPED: "task-succeeded",
    AgentStatus.PENDING: "task-retried",
    AgentStatus.CANCELLED: "task-revoked",
}
#: Celery's event for each type of history event that can end an agent run without a worker.
EVENT_OF_TYPE = {
    "agent_completed": "task-succeeded",
    "agent_failed": "task-failed",
    "agent_cancelled": "task-revoked",
}

log = structlog.get_logger(__name__)
FlowerEvent = tuple[str, dict[str, Any]]


class FlowerEvents:
    """Sends the events of agent runs to Flower, and never slows down the agent runs.

    Its weakness: if the queue is full, events are dropped and counted. A killed worker loses its
    queue, too. So Flower may miss events. The alternative is the history in Postgres, which is
    complete (``app.client.event_bus``).

    Args:
        celery: The Celery instance.
        hostname: The node name that Flower lists for this worker.
        redact: Hides secrets in the values that Flower shows.
        payloads: Whether prompts, outputs and the texts of errors are shown.

    Attributes:
        dropped: Number of events that were dropped.

    Example:
        flower_events = FlowerEvents(celery, "worker1@host", redact=redactor.text)
        flower_events.start()
        flower_events.started(job)
        flower_events.ended(job, ending)
        flower_events.stop()
    """

    def __init__(
        self,
        celery: Celery,
        hostname: str,
        *,
        redact: Callable[[str], str],
        payloads: bool = False,
    ) -> None:
        self._celery = celery
        self._hostname = hostname
        self._redact = redact
        self._payloads = payloads
        self._queue: queue.Queue[FlowerEvent | None] = queue.Queue(MAX_QUEUED)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flower_events", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send the queued events, and end the thread."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(timeout=5)

    def started(self, job: Job) -> None:
        """Tell Flower that an attempt has started."""
        uuid, now = str(job.claimed.id), job.started_at
        if job.claimed.attempt > 1:
            # In Flower, a task starts again only after a retry event. The worker of the previous
            # attempt may have been killed before it could send this event.
            self._put("task-retried", {"uuid": uuid, "timestamp": now})
        received = {"parent_id": None, "eta": None, "expires": None, "timestamp": now}
        self._put("task-received", _about(job) | received)
        self._put("task-started", {"uuid": uuid, "timestamp": now})

    def ended(self, job: Job, ending: Ending) -> None:
        """Tell Flower that an attempt has ended and is recorded."""
        now = time.time()
        fields = _about(job) | {  # again, because Flower may have started meanwhile
            "timestamp": now,
            "runtime": now - job.started_at,
            "result": _dollars(job.settling.spent_usd),
        }
        kind = EVENT_OF_STATUS.get(ending.status, "task-failed")
        if self._payloads and job.prompt is not None:
            fields["args"] = self._shown((job.prompt,))
        if kind == "task-succeeded":
            fields |= {"exception": None, "traceback": None}
            if self._payloads:
                fields["result"] += f" {self._shown(ending.output)}"
        elif kind == "task-revoked":
            fields |= {"terminated": False, "signum": None, "expired": False}
        else:
            fields |= {"exception": self._reason(ending), "traceback": None}
        self._put(kind, fields)

    def tell(self, events: Sequence[RunEvent]) -> None:
        """Send the ends of agent runs that no worker has ended.

        These agents were cancelled before they started, lost their last worker, or ended together
        with their items or their sub-workflow. If a worker has recorded an end, this end is left
        out, because that worker has already sent the end.
        """
        for event in events:
            if event.agent_run_id is None or not _by_nobody(event):
                continue
            kind = EVENT_OF_TYPE[event.type]
            name = f"agent.{agent_of(event.data['agent'])}"
            fields = {
                "uuid": str(event.agent_run_id),
                "timestamp": event.at.timestamp(),
                "name": name,
            }
            if event.attempt is None:
                about = {"args": "()", "kwargs": repr({"run_id": str(event.run_id)})}
                self._put("task-received", fields | about)
            if (error_class := event.data.get("error_class")) is not None:
                error = self._shown(event.data["error"]) if self._payloads else None
                fields["exception"] = f"{error_class}: {error}" if error else error_class
            self._put(kind, fields)

    def _reason(self, ending: Ending) -> str:
        if ending.waits_for:
            return f"waits for {ending.waits_for}"
        if ending.error_class is None:
            return ending.outcome
        text = f": {self._shown(ending.error)}" if self._payloads else ""
        return f"{ending.error_class}{text}"

    def _shown(self, value: Any) -> str:
        """Return a value as a short string without secrets."""
        text = value if isinstance(value, str) else repr(value)
        # The redactor does not recognise a secret that the first cut divides. The second cut
        # removes the rest of such a secret.
        plain = shown(self._redact(text[: 2 * MAX_CHARS]))
        return plain if len(plain) <= MAX_CHARS else f"{plain[:MAX_CHARS]}..."

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
                    log.warning("flower_events_not_sent", error=str(error))

    def _forward(self, dispatcher: Any) -> bool:
        """Move the queue into the dispatcher's buffer; return False after ``stop``."""
        item = self._queue.get()
        self._stopping.wait(FLUSH_S)  # collect a batch, which one message carries
        while item is not None:
            kind, fields = item
            dispatcher.send(kind, **fields)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return True
        return False


def _about(job: Job) -> dict[str, Any]:
    """Return the fields that identify an agent run."""
    facts = {
        "run_id": str(job.run.run_id),
        "workflow": job.run.workflow.name,
        "model": job.agent.model,
        "attempt": job.claimed.attempt,
    }
    return {
        "uuid": str(job.claimed.id),
        "name": f"agent.{job.agent.name}",
        "args": "()",
        "kwargs": repr(facts),
        "root_id": str(job.run.run_id),
        "retries": job.claimed.retries,
    }


def _by_nobody(event: RunEvent) -> bool:
    """Return True if no worker has sent this end."""
    facts = event.data
    together = "items" in facts or "run_id" in facts  # the end of a list, or of a sub-workflow
    silent = facts.get("error_class") == RecoveriesExhausted.__name__
    return event.attempt is None or together or silent


def _dollars(amount: Decimal) -> str:
    return f"${amount.normalize():f}"

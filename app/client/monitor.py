"""Monitor: numbers and events of the whole cluster, and a program's own events."""

import logging
import threading
from collections.abc import Mapping
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import structlog

from app.client.process import transaction
from app.configuration.settings import load_settings
from app.domain.bounds import Bounds
from app.domain.json_text import write_json
from app.domain.json_values import find_json_problem
from app.domain.plain_text import find_name_problem
from app.domain.policies import MonitorConfig
from app.domain.suggestions import shortened
from app.errors import WorkflowError
from app.monitoring.recent import MetricEvent, recent_events, record_event
from app.monitoring.status import metrics_of, summary_of, system_totals
from app.storage.session import dumps
from app.telemetry.redaction import Redactor

COUNT = Bounds(low=1, high=10_000, whole=True)
MAX_NAME = 200
#: Maximum size of an event's data. An event is a line of a history, not a place for documents.
MAX_DATA_BYTES = 100_000


class Monitor:
    """Returns numbers and events of the cluster, and stores the caller's own events.

    Each method reads its numbers from Postgres: from the run tables, the histories and the ledger.
    So all monitors return the same numbers, in every process and after every restart.

    If a monitor is used as a context manager, the monitor also logs the metrics every
    ``metrics_interval`` seconds.

    Each result needs a query over the whole cluster, so a monitor is not a good source for charts.
    Prometheus reads the exporter (``agentchord exporter``). A program that follows every event uses
    ``EventBus``.

    Args:
        config: The settings of monitoring; None means the settings of the configuration.

    Example:
        monitor = Monitor()
        monitor.record_event("imported", workflow_id=run.id, data={"rows": 120})
        print(monitor.get_summary()["workflows"]["success_rate"])
    """

    def __init__(self, config: MonitorConfig | None = None) -> None:
        self._config = config or load_settings().monitoring
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @cached_property
    def _redactor(self) -> Redactor:
        return Redactor(load_settings().secret_values())

    def record_event(
        self,
        event_type: str,
        agent_id: str | UUID | None = None,
        workflow_id: str | UUID | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the caller's own event; the workers store the events of agents.

        The event is stored if ``enable_metrics`` is true, and logged if ``enable_logging`` is true.

        Args:
            event_type: Short name of the event, at most 200 characters.
            agent_id: Id of the agent run that the event concerns, or a name that the caller
                chooses.
            workflow_id: Id of a run or a workflow, or a name that the caller chooses.
            data: Facts, as JSON of up to 100,000 bytes. A string that looks like a secret key is
                stored as ``[redacted]``.

        Raises:
            WorkflowError: If the type is empty or too long, if an id is not a string, or if the
                data is not JSON or is too large. This is a ValueError.
            ServiceUnavailable: If Postgres cannot be reached.
        """
        if not isinstance(data, Mapping | None):
            raise WorkflowError(f"data is {shortened(data)}: give facts by name", field="data")
        given = dict(data or {})
        _check(event_type, given)
        facts = self._redactor.value(given)
        agent_id, workflow_id = _id("agent_id", agent_id), _id("workflow_id", workflow_id)
        if self._config.enable_logging:
            _logger().info(
                "event", event_type=event_type, agent_id=agent_id, workflow_id=workflow_id, **facts
            )
        if self._config.enable_metrics:
            transaction(
                partial(
                    record_event,
                    event_type=event_type,
                    agent_id=agent_id,
                    workflow_id=workflow_id,
                    data=dumps(facts),
                )
            )

    def get_metrics(self) -> dict[str, Any]:
        """Return numbers of the whole cluster since the first workflow was registered.

        Returns:
            These numbers by name:

            - ``workflows_started``, ``workflows_completed``, ``workflows_partially_completed``,
              ``workflows_failed``, ``workflows_cancelled``, ``workflows_active``,
            - ``agents_executed`` (completed or failed), ``agents_failed``, ``agents_active``,
            - ``total_api_calls``, ``total_tokens``, ``total_cost`` (dollars), ``rate_limit_hits``,
            - ``avg_agent_execution_time`` (seconds of a completed attempt),
            - ``uptime_seconds`` (seconds since that first registration).

        Raises:
            ServiceUnavailable: If Postgres cannot be reached.
        """
        return metrics_of(transaction(system_totals))

    def get_summary(self) -> dict[str, Any]:
        """Return the numbers of ``get_metrics`` in groups, with shares.

        Returns:
            These groups by name:

            - ``uptime_seconds``,
            - ``workflows``: counts by state, and ``success_rate`` in percent of the ended
              workflows,
            - ``agents``, with ``success_rate`` and ``avg_execution_time``,
            - ``api``, with ``total_calls``, ``total_tokens`` and ``rate_limited``,
            - ``costs``, with ``total_cost`` and ``cost_per_workflow``.

        Raises:
            ServiceUnavailable: If Postgres cannot be reached.
        """
        return summary_of(transaction(system_totals))

    def get_recent_events(
        self, count: int = 100, event_type: str | None = None
    ) -> list[MetricEvent]:
        """Return the newest events of the whole cluster, oldest first.

        Args:
            count: Maximum number of events, up to 10,000.
            event_type: Type of the events, such as ``run_failed``, ``agent_completed``,
                ``budget_threshold``, ``api_call`` (one event for each call in the ledger), or a
                type that a program recorded; None means every type.

        Raises:
            WorkflowError: If the count is out of bounds, or if the type is not a string. This is a
                ValueError.
            ServiceUnavailable: If Postgres cannot be reached.
        """
        if problem := COUNT.problem(count):
            raise WorkflowError(f"count {problem}", field="count")
        if not isinstance(event_type, str | None):
            raise WorkflowError(
                f"event_type is {event_type!r}: give the name of a type", field="event_type"
            )
        return transaction(partial(recent_events, count=count, event_type=event_type))

    def __enter__(self) -> Self:
        """Start logging the metrics, if ``enable_metrics`` and ``enable_logging`` are true."""
        if self._config.enable_metrics and self._config.enable_logging:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._log, name="monitor", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop logging."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _log(self) -> None:
        while not self._stopping.wait(self._config.metrics_interval):
            try:
                metrics = self.get_metrics()
            except Exception as error:  # noqa: BLE001  the next time may be better
                _logger().warning("metrics_not_read", error=str(error))
            else:
                _logger().info("metrics", **metrics)


def _check(event_type: str, facts: dict[str, Any]) -> None:
    """Refuse an event whose type is no name, or whose facts are not JSON or are too large."""
    if not isinstance(event_type, str):
        raise WorkflowError(f"event_type is {event_type!r}: give it a name", field="event_type")
    if not event_type or len(event_type) > MAX_NAME or "\0" in event_type:
        raise WorkflowError(
            f"event_type is {event_type[:MAX_NAME]!r}: give it 1 to {MAX_NAME} characters",
            field="event_type",
        )
    if problem := find_name_problem(event_type):
        raise WorkflowError(f"event_type {problem}", field="event_type")
    if found := find_json_problem(facts, "data"):
        raise WorkflowError(f"event {event_type!r}: {' '.join(found)}", field=found[0])
    if (size := len(write_json(facts))) > MAX_DATA_BYTES:
        raise WorkflowError(
            f"data of {event_type!r} has {size:,} bytes, but at most {MAX_DATA_BYTES:,} are "
            "allowed: store the data elsewhere, and a reference to it here",
            field="data",
        )


def _id(name: str, value: str | UUID | None) -> str | None:
    """Return an id as a string; refuse other types, which are usually swapped arguments."""
    if value is None or isinstance(value, UUID):
        return None if value is None else str(value)
    if not isinstance(value, str) or "\0" in value:
        raise WorkflowError(
            f"{name} is {shortened(value)}: give an id or a name (facts are data=...)", field=name
        )
    return value


def _logger() -> Any:
    """Return a logger that is silent unless the program has configured logging.

    Until a program has configured structlog, structlog prints to standard output. A library must
    not print to standard output.
    """
    if structlog.is_configured():
        return structlog.get_logger(__name__)
    return structlog.wrap_logger(
        logging.getLogger(__name__), processors=[structlog.stdlib.render_to_log_kwargs]
    )
